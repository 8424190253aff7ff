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
    /// One by one.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for KernelArguments {
    type Err = KernelArgumentError;

    /// Arguments separated by blanks. iPXE knows no quoting (`src/core/exec.c`), so neither does this: quotes are passed on.
    fn from_str(text: &str) -> Result<Self, KernelArgumentError> {
        if text.chars().any(|c| c.is_control() && c != '\t') {
            return Err(refuse(text, "control characters and line breaks end the command"));
        }
        let words = text.split([' ', '\t']).filter(|word| !word.is_empty());
        words.map(checked).collect::<Result<_, _>>().map(Self)
    }
}

fn refuse(argument: &str, why: &'static str) -> KernelArgumentError {
    KernelArgumentError {
        argument: argument.to_owned(),
        why,
    }
}

/// One argument that iPXE reads as nothing else.
fn checked(argument: &str) -> Result<String, KernelArgumentError> {
    let why = match argument {
        "" => "it is empty",
        "&&" | "||" | ";" => "iPXE reads it as the end of the command",
        a if a.contains(|c: char| c.is_whitespace() || c.is_control()) => "blanks and line breaks separate arguments",
        a if a.starts_with('#') => "iPXE reads it as the start of a comment",
        a if a.contains("${") => "iPXE expands ${ } and there is no way to write it literally",
        a if a.ends_with('\\') => "a backslash at the end joins the next line",
        a => return Ok(a.to_owned()),
    };
    Err(refuse(argument, why))
}

/// Changes to a kernel's command line: arguments go, change, or come at the end, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ArgumentEdits {
    remove: Vec<String>,
    replace: Vec<(String, String)>,
    append: Vec<String>,
}

/// Arguments without which the script does not boot: the bridge sets them itself.
const KEPT: [&str; 2] = ["initrd", "coreos.live.rootfs_url"];

impl ArgumentEdits {
    /// Checked edits. `remove` and the first of each `replace` name an argument by its key (`console`: every one of them) or as a whole
    /// (`console=ttyS0`).
    pub fn new(remove: &[String], replace: &[(String, String)], append: &[String]) -> Result<Self, KernelArgumentError> {
        let named = |argument: &String| match KEPT.contains(&key(argument)) {
            true => Err(refuse(argument, "the machine could not boot without it")),
            false => checked(argument),
        };
        Ok(Self {
            remove: remove.iter().map(named).collect::<Result<_, _>>()?,
            replace: replace
                .iter()
                .map(|(from, to)| Ok((named(from)?, checked(to)?)))
                .collect::<Result<_, _>>()?,
            append: append.iter().map(|argument| checked(argument)).collect::<Result<_, _>>()?,
        })
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.replace.is_empty() && self.append.is_empty()
    }

    /// Whether an argument of a command line is there because of these changes.
    pub fn gives(&self, argument: &str) -> bool {
        self.append.iter().any(|appended| appended == argument) || self.replace.iter().any(|(_, with)| with == argument)
    }

    /// The command line after the changes. What is not changed stays to the byte, blanks included. Of an argument that is there
    /// several times every one is replaced where it stands.
    pub fn apply(&self, line: &str) -> String {
        let mut out = String::with_capacity(line.len() + 64);
        for (blanks, argument) in split(line) {
            if self.remove.iter().any(|named| is_named(argument, named)) {
                continue;
            }
            let replaced = self.replace.iter().find(|(named, _)| is_named(argument, named));
            out.push_str(blanks);
            out.push_str(replaced.map_or(argument, |(_, with)| with));
        }
        for argument in &self.append {
            out.push(' ');
            out.push_str(argument);
        }
        out
    }
}

impl fmt::Display for ArgumentEdits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let removed = self.remove.iter().map(|argument| format!("without {argument}"));
        let replaced = self.replace.iter().map(|(from, to)| format!("{from} becomes {to}"));
        let appended = self.append.iter().map(|argument| format!("with {argument}"));
        f.write_str(&removed.chain(replaced).chain(appended).collect::<Vec<_>>().join(", "))
    }
}

fn key(argument: &str) -> &str {
    argument.split('=').next().unwrap_or(argument)
}

/// Whether an argument is meant by a key, or by the whole text.
fn is_named(argument: &str, named: &str) -> bool {
    match named.contains('=') {
        true => argument == named,
        false => key(argument) == named,
    }
}

/// The arguments of a command line.
pub fn arguments(line: &str) -> impl Iterator<Item = &str> {
    split(line)
        .map(|(_, argument)| argument)
        .filter(|argument| !argument.is_empty())
}

/// The arguments of a command line, each with the blanks before it. Double quotes hold blanks together, as the kernel reads them
/// (`lib/cmdline.c`, `next_arg`).
fn split(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = line;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let start = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
        let mut quoted = false;
        let end = rest[start..].find(|c: char| {
            quoted ^= c == '"';
            c.is_whitespace() && !quoted
        });
        let end = end.map_or(rest.len(), |end| start + end);
        let pair = (&rest[..start], &rest[start..end]);
        rest = &rest[end..];
        Some(pair)
    })
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
        assert_eq!("".parse::<KernelArguments>().expect("valid").to_string(), "");
    }

    fn edits(remove: &[&str], replace: &[(&str, &str)], append: &[&str]) -> Result<ArgumentEdits, KernelArgumentError> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let pairs: Vec<_> = replace
            .iter()
            .map(|(from, to)| ((*from).to_owned(), (*to).to_owned()))
            .collect();
        ArgumentEdits::new(&owned(remove), &pairs, &owned(append))
    }

    #[test]
    fn arguments_go_change_and_come_and_the_rest_stays_to_the_byte() {
        let line = " initrd=initrd  console=tty1 console=ttyS1,115200n8 kargs=\"console=tty1  console=x\" quiet";
        for (remove, replace, append, expected) in [
            (&[][..], &[][..], &[][..], line.to_owned()),
            (
                &["console"],
                &[],
                &[],
                " initrd=initrd kargs=\"console=tty1  console=x\" quiet".to_owned(),
            ),
            (&["console=tty1"], &[], &[], line.replacen("  console=tty1", "", 1)),
            (
                &["kargs", "nosuch"],
                &[],
                &["a=1", "b"],
                " initrd=initrd  console=tty1 console=ttyS1,115200n8 quiet a=1 b".to_owned(),
            ),
            (
                &[],
                &[("console=ttyS1,115200n8", "console=ttyS0"), ("quiet", "loud")],
                &[],
                line.replace("ttyS1,115200n8", "ttyS0").replace("quiet", "loud"),
            ),
            (
                &[],
                &[("console", "console=ttyAMA0")],
                &[],
                " initrd=initrd  console=ttyAMA0 console=ttyAMA0 kargs=\"console=tty1  console=x\" quiet".to_owned(),
            ),
        ] {
            assert_eq!(
                edits(remove, replace, append).expect("valid").apply(line),
                expected,
                "{remove:?} {replace:?} {append:?}"
            );
        }
    }

    #[test]
    fn what_the_bridge_needs_cannot_be_taken_away() {
        for name in ["initrd", "initrd=initrd", "coreos.live.rootfs_url"] {
            assert!(
                edits(&[name], &[], &[]).is_err() && edits(&[], &[(name, "x")], &[]).is_err(),
                "{name}"
            );
        }
        assert!(edits(&[], &[], &["a b"]).is_err() && edits(&[""], &[], &[]).is_err());
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
