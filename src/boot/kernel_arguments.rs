//! Kernel arguments that the bridge adds to a script.

use std::fmt;
use std::str::FromStr;

/// Kernel arguments in the order in which they are appended, checked so that iPXE reads them as nothing but arguments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelArguments(Vec<String>);

/// Why a text cannot be kernel arguments in an iPXE script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{argument:?} cannot be a kernel argument: {why}")]
pub struct KernelArgumentError {
    argument: String,
    why: &'static str,
}

impl KernelArguments {
    /// Whether there is nothing to append.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for KernelArguments {
    type Err = KernelArgumentError;

    /// Arguments separated by blanks. iPXE knows no quoting (`src/core/exec.c`), so neither does this: quotes are passed on.
    fn from_str(text: &str) -> Result<Self, KernelArgumentError> {
        let refuse = |argument: &str, why| KernelArgumentError {
            argument: argument.to_owned(),
            why,
        };
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return Err(refuse(text, "control characters and line breaks end the command"));
        }
        let arguments: Vec<String> = text.split([' ', '\t']).filter(|a| !a.is_empty()).map(str::to_owned).collect();
        for argument in &arguments {
            match argument.as_str() {
                "&&" | "||" | ";" => {
                    return Err(refuse(argument, "iPXE reads it as the end of the command"));
                }
                a if a.starts_with('#') => {
                    return Err(refuse(argument, "iPXE reads it as the start of a comment"));
                }
                a if a.contains("${") => {
                    return Err(refuse(
                        argument,
                        "iPXE expands ${ } and there is no way to write it literally",
                    ));
                }
                a if a.ends_with('\\') => {
                    return Err(refuse(argument, "a backslash at the end joins the next line"));
                }
                _ => {}
            }
        }
        Ok(Self(arguments))
    }
}

impl fmt::Display for KernelArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_their_order_and_quotes() {
        let text = "  console=tty0 console=ttyS0,115200n8\tp=\"a  b\" --flag a&&b x#y ";
        let arguments: KernelArguments = text.parse().expect("valid");
        assert_eq!(
            arguments.to_string(),
            "console=tty0 console=ttyS0,115200n8 p=\"a b\" --flag a&&b x#y"
        );
        assert!("".parse::<KernelArguments>().expect("valid").is_empty());
    }

    #[test]
    fn what_ipxe_reads_as_syntax_is_refused() {
        for bad in [
            "a && b", "a || b", "a ; b", "#a", "a #b", "${x}", "a${b}", "a\nb", "a\0", "a\\", "a\\ b",
        ] {
            assert!(bad.parse::<KernelArguments>().is_err(), "{bad:?}");
        }
    }
}
