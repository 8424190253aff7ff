//! Upstream's iPXE scripts: understood just far enough to put the bridge's addresses in place of upstream's.
//!
//! A script is never taken apart and printed anew. Parsing finds the places that may change, rewriting changes those places, and
//! everything between them is the same to the byte. How iPXE reads a line: split at white space, no quoting; `&&`, `||`, `;` end a
//! command, a token that starts with `#` starts a comment, a `\` at the end joins the next line, a CR at the end is dropped
//! (`ipxe:src/core/exec.c`, `src/image/script.c`).

use std::ops::Range;

use super::artifact::ArtifactKind;

pub(super) mod words;

use words::{Command, commands};

/// The largest script that is read from upstream, in bytes; upstream's own have less than 2 KiB.
pub const MAX_SCRIPT: usize = 1024 * 1024;

/// Name given to the kernel image if the script gives none.
const KERNEL_NAME: &str = "kernel";
/// Name given to the initrd image if the script gives none.
const INITRD_NAME: &str = "initrd";
/// The kernel argument with which a live system finds its root file system.
const ROOTFS_ARGUMENT: &str = "coreos.live.rootfs_url=";

/// The forms of script that upstream serves (assisted-service `internal/bminventory/inventory_v2_handlers.go`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamScript {
    /// Loads kernel and initrd and boots them.
    Boot(BootScript),
    /// Chains to the same service with the MAC address added; served under boot order control.
    Redirect,
}

/// A script that loads a kernel and an initrd and boots them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootScript {
    text: String,
    /// Places that may change, in order, without overlap.
    places: Vec<(Range<usize>, Place)>,
}

/// What stands at a place, or may be put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The address of an artifact.
    Url(ArtifactKind),
    /// Before the address of an image that has no name.
    ImageName(&'static str),
    /// After the kernel's address, where the command line does not name the initrd.
    InitrdArgument,
    /// The end of the kernel's command line.
    KernelArguments,
    /// The end of a command whose failure should be retried.
    CommandEnd,
    /// The end of the first line.
    Start,
}

/// Why a text is not a script the bridge can pass on. Never repeats the text: it holds a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// No `#!ipxe` at the start.
    #[error("it does not begin with #!ipxe")]
    NotAScript,
    /// Longer than [`MAX_SCRIPT`].
    #[error("it is longer than 1 MiB")]
    TooLong,
    /// Not text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// A command that must be there once is missing or doubled.
    #[error("expected one {command} command, found {found}")]
    Command {
        /// The command.
        command: &'static str,
        /// How many there are.
        found: usize,
    },
    /// A command without its address.
    #[error("line {line}: {command} has no http or https address")]
    NoUrl {
        /// Line number, from 1.
        line: usize,
        /// The command.
        command: &'static str,
    },
    /// A token would be left in the rewritten script.
    #[error("line {line} holds a token at a place the bridge does not know")]
    Secret {
        /// Line number, from 1.
        line: usize,
    },
}

/// What a rewritten script gets.
pub struct Rewrite<'a> {
    /// The bridge's address of each kind of artifact.
    pub url: &'a dyn Fn(ArtifactKind) -> String,
    /// Makes the kernel's command line anew: given everything behind the address of the kernel.
    pub arguments: &'a dyn Fn(&str) -> String,
    /// Lines put after the first one, each with its line end; empty for none.
    pub prologue: &'a str,
    /// Label that a failed command jumps to; `None` leaves failures alone.
    pub on_failure: Option<&'a str>,
    /// Lines put at the end; empty for none.
    pub epilogue: &'a str,
}

impl UpstreamScript {
    /// Reads what upstream answered.
    pub fn parse(body: &[u8]) -> Result<Self, ScriptError> {
        if body.len() > MAX_SCRIPT {
            return Err(ScriptError::TooLong);
        }
        let text = std::str::from_utf8(body).map_err(|_| ScriptError::NotText)?;
        match text.strip_prefix("#!ipxe") {
            Some(rest) if rest.starts_with(char::is_whitespace) => {}
            _ => return Err(ScriptError::NotAScript),
        }
        let commands = commands(text);
        let redirects = |command: &Command| {
            command.name() == "chain" && command.words.iter().any(|word| word.text.contains("file_name=ipxe-script"))
        };
        if commands.iter().any(redirects) && !commands.iter().any(|command| is_kernel(command.name())) {
            return Ok(Self::Redirect);
        }
        BootScript::new(text, &commands).map(Self::Boot)
    }
}

impl BootScript {
    fn new(text: &str, commands: &[Command<'_>]) -> Result<Self, ScriptError> {
        let kernel = the_one(commands, "kernel", is_kernel)?;
        let initrd = the_one(commands, "initrd", is_initrd)?;
        let boot = the_one(commands, "boot", |name| matches!(name, "boot" | "imgexec"))?;

        let first_line = text.find('\n').map_or(text.len(), |end| end + 1);
        let mut places = vec![(first_line..first_line, Place::Start)];

        let initrd_url = initrd.url("initrd")?;
        places.push((initrd_url.range.clone(), Place::Url(ArtifactKind::Initrd)));
        let kernel_url = kernel.url("kernel")?;
        places.push((kernel_url.range.clone(), Place::Url(ArtifactKind::Kernel)));
        for (command, url, name) in [(kernel, &kernel_url, KERNEL_NAME), (initrd, &initrd_url, INITRD_NAME)] {
            if !command.has_name() {
                places.push((url.range.start..url.range.start, Place::ImageName(name)));
            }
        }
        if !initrd.has_name() && !kernel.words.iter().any(|word| word.text.starts_with("initrd=")) {
            places.push((kernel_url.range.end..kernel_url.range.end, Place::InitrdArgument));
        }
        for word in &kernel.words {
            if let Some(url) = word.text.strip_prefix(ROOTFS_ARGUMENT) {
                let range = word.range.end - url.len()..word.range.end;
                places.push((range, Place::Url(ArtifactKind::Rootfs)));
            }
        }
        places.push((kernel.end()..kernel.end(), Place::KernelArguments));
        for command in [initrd, kernel, boot] {
            // A command that already says what happens on failure is left alone.
            if command.is_last_of_line {
                places.push((command.end()..command.end(), Place::CommandEnd));
            }
        }
        // The sort is stable: at the kernel's end its arguments come before the end of the command, as pushed.
        places.sort_by_key(|(range, _)| (range.start, range.end));
        Ok(Self {
            text: text.to_owned(),
            places,
        })
    }

    /// The script with the bridge's addresses, and with what the rewrite adds.
    pub fn rewrite(&self, rewrite: &Rewrite<'_>) -> Result<String, ScriptError> {
        let mut out = String::with_capacity(self.text.len() + rewrite.prologue.len() + rewrite.epilogue.len() + 256);
        let mut done = 0;
        let mut arguments = 0;
        for (range, place) in &self.places {
            let kept = &self.text[done..range.start];
            check_no_secret(kept, &self.text[..done])?;
            out.push_str(kept);
            done = range.end;
            match place {
                Place::Url(kind) => {
                    out.push_str(&(rewrite.url)(*kind));
                    if *kind == ArtifactKind::Kernel {
                        arguments = out.len();
                    }
                }
                Place::ImageName(name) => {
                    out.push_str("--name ");
                    out.push_str(name);
                    out.push(' ');
                }
                Place::InitrdArgument => {
                    out.push_str(" initrd=");
                    out.push_str(INITRD_NAME);
                }
                Place::KernelArguments => {
                    let line = out.split_off(arguments);
                    out.push_str(&(rewrite.arguments)(&line));
                }
                Place::CommandEnd => {
                    if let Some(label) = rewrite.on_failure {
                        out.push_str(" || goto ");
                        out.push_str(label);
                    }
                }
                Place::Start => {
                    if !out.ends_with('\n') && !rewrite.prologue.is_empty() {
                        out.push('\n');
                    }
                    out.push_str(rewrite.prologue);
                }
            }
        }
        let kept = &self.text[done..];
        check_no_secret(kept, &self.text[..done])?;
        out.push_str(kept);
        if !out.ends_with('\n') && !rewrite.epilogue.is_empty() {
            out.push('\n');
        }
        out.push_str(rewrite.epilogue);
        Ok(out)
    }
}

/// Refuses text that holds one of upstream's tokens (assisted-service `pkg/auth`: `api_key`, `image_token`; in a path: `byapikey`,
/// `bytoken`).
fn check_no_secret(kept: &str, before: &str) -> Result<(), ScriptError> {
    for marker in ["api_key=", "image_token=", "/byapikey/", "/bytoken/"] {
        if let Some(at) = kept.find(marker) {
            let line = 1 + before.matches('\n').count() + kept[..at].matches('\n').count();
            return Err(ScriptError::Secret { line });
        }
    }
    Ok(())
}

fn is_kernel(name: &str) -> bool {
    matches!(name, "kernel" | "imgselect")
}

fn is_initrd(name: &str) -> bool {
    matches!(name, "initrd" | "imgfetch" | "module")
}

/// The only command of its kind.
fn the_one<'a, 't>(
    commands: &'a [Command<'t>],
    command: &'static str,
    is: impl Fn(&str) -> bool,
) -> Result<&'a Command<'t>, ScriptError> {
    let mut found = commands.iter().filter(|command| is(command.name()));
    match (found.next(), found.count()) {
        (Some(one), 0) => Ok(one),
        (first, more) => Err(ScriptError::Command {
            command,
            found: usize::from(first.is_some()) + more,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "#!ipxe\n\
        initrd --name initrd http://u:8081/images/x/pxe-initrd?api_key=TOKEN&arch=x86_64\n\
        kernel http://u:8081/boot-artifacts/kernel?arch=x86_64 initrd=initrd coreos.live.rootfs_url=http://u/rootfs?v=1 a \"b  c\"\n\
        boot\n";

    fn plain(script: &str) -> Result<String, ScriptError> {
        match UpstreamScript::parse(script.as_bytes())? {
            UpstreamScript::Redirect => Ok("redirect".to_owned()),
            UpstreamScript::Boot(script) => script.rewrite(&Rewrite {
                url: &|kind| format!("http://b/{kind}"),
                arguments: &str::to_owned,
                prologue: "",
                on_failure: None,
                epilogue: "",
            }),
        }
    }

    #[test]
    fn only_addresses_change() {
        assert_eq!(
            plain(BOOT).expect("a boot script"),
            "#!ipxe\ninitrd --name initrd http://b/initrd\n\
             kernel --name kernel http://b/kernel initrd=initrd coreos.live.rootfs_url=http://b/rootfs a \"b  c\"\nboot\n"
        );
    }

    #[test]
    fn additions_stand_where_they_belong() {
        let UpstreamScript::Boot(script) = UpstreamScript::parse(BOOT.trim_end().as_bytes()).expect("parses") else {
            panic!("a boot script");
        };
        let out = script.rewrite(&Rewrite {
            url: &|kind| kind.to_string(),
            arguments: &|line| format!("{line} x=1 y"),
            prologue: "imgfree\n",
            on_failure: Some("failed"),
            epilogue: ":failed\nexit 1\n",
        });
        assert_eq!(
            out.expect("rewrites"),
            "#!ipxe\nimgfree\ninitrd --name initrd initrd || goto failed\n\
             kernel --name kernel kernel initrd=initrd coreos.live.rootfs_url=rootfs a \"b  c\" x=1 y || goto failed\n\
             boot || goto failed\n:failed\nexit 1\n"
        );
    }

    #[test]
    fn a_redirect_is_known_as_one() {
        let redirect = "#!ipxe\nchain https://u/f?api_key=T&file_name=ipxe-script&mac=${net0/mac}\n";
        assert_eq!(plain(redirect).expect("known"), "redirect");
    }

    #[test]
    fn other_texts_are_refused_without_repeating_them() {
        let cases = [
            ("", "it does not begin with #!ipxe"),
            ("<html>TOKEN</html>", "it does not begin with #!ipxe"),
            ("\u{feff}#!ipxe\nboot\n", "it does not begin with #!ipxe"),
            ("#!ipxeboot\n", "it does not begin with #!ipxe"),
            ("#!ipxe\nshell\n", "expected one kernel command, found 0"),
            ("#!ipxe\nchain http://other/TOKEN\n", "expected one kernel command, found 0"),
            (
                "#!ipxe\nkernel http://k\nkernel http://k\ninitrd http://i\nboot\n",
                "expected one kernel command, found 2",
            ),
            ("#!ipxe\nkernel http://k\nboot\n", "expected one initrd command, found 0"),
            (
                "#!ipxe\nkernel http://k\ninitrd http://i\n",
                "expected one boot command, found 0",
            ),
            (
                "#!ipxe\nkernel\ninitrd http://i\nboot\n",
                "line 2: kernel has no http or https address",
            ),
            (
                "#!ipxe\nkernel TOKEN\ninitrd http://i\nboot\n",
                "line 2: kernel has no http or https address",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(plain(text).expect_err(text).to_string(), message, "{text}");
        }
        assert_eq!(UpstreamScript::parse(b"#!ipxe\n\xff"), Err(ScriptError::NotText));
        assert_eq!(UpstreamScript::parse(&vec![b' '; MAX_SCRIPT + 1]), Err(ScriptError::TooLong));
    }

    #[test]
    fn a_token_at_an_unknown_place_is_refused() {
        let script = BOOT.replace("boot\n", "echo http://u/x?api_key=TOKEN\nboot\n");
        assert_eq!(plain(&script), Err(ScriptError::Secret { line: 4 }));
        let script = BOOT.replace(" a ", " ignition.config.url=http://u/bytoken/x ");
        assert_eq!(plain(&script), Err(ScriptError::Secret { line: 3 }));
    }
}
