//! Mistakes that people make in scripts of their own. None of them stops a script from being served: they are told, not mended.

use super::script::words::commands;

/// The longest script that an override holds, in bytes; its schema says the same.
pub const MAX_OWN_SCRIPT: usize = 64 * 1024;

/// What is likely wrong with a script, each with its line where it has one.
pub fn mistakes(script: &str) -> Vec<String> {
    let mut mistakes = Vec::new();
    let start = script.trim_start_matches('\u{feff}').trim_start();
    if start.starts_with('<') {
        mistakes.push("line 1: this looks like HTML, expected an iPXE script".to_owned());
    } else if !script
        .strip_prefix("#!ipxe")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    {
        mistakes.push("line 1: the first line must be #!ipxe, with nothing before it".to_owned());
    }
    if script.len() > MAX_OWN_SCRIPT {
        mistakes.push(format!(
            "{} bytes are too many, expected at most {MAX_OWN_SCRIPT}",
            script.len()
        ));
    }
    if let Some(line) = script
        .lines()
        .position(|line| line.ends_with('\r'))
        .or_else(|| script.split('\n').position(|line| line.ends_with('\r')))
    {
        mistakes.push(format!(
            "line {}: lines end in CR LF: iPXE drops the CR, other readers may not",
            line + 1
        ));
    }
    let labels: Vec<&str> = script.lines().filter_map(label).collect();
    for command in commands(script).iter().filter(|command| command.name() == "goto") {
        // A label with a setting in it is known only to the machine.
        if let Some(target) = command
            .words
            .get(1)
            .filter(|word| !word.text.contains("${") && !labels.contains(&word.text))
        {
            mistakes.push(format!(
                "line {}: goto {} leads nowhere, there is no such label",
                command.line, target.text
            ));
        }
    }
    mistakes
}

/// The label that a line defines: the word behind a colon at its start (iPXE `src/image/script.c`).
fn label(line: &str) -> Option<&str> {
    line.trim_start().strip_prefix(':')?.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (script, expected) in [
            ("#!ipxe\n:a\ngoto a\ngoto ${x}\nshell", vec![]),
            ("#!ipxe", vec![]),
            ("shell\n", vec!["line 1: the first line must be #!ipxe"]),
            ("\n#!ipxe\n", vec!["line 1: the first line must be #!ipxe"]),
            ("\u{feff}#!ipxe\n", vec!["line 1: the first line must be #!ipxe"]),
            ("<html>", vec!["line 1: this looks like HTML"]),
            ("#!ipxe\nshell\r\n", vec!["line 2: lines end in CR LF"]),
            (
                "#!ipxe\n  :loop echo x\nisset x || goto Loop\ngoto end # goto x\n",
                vec!["line 3: goto Loop leads nowhere", "line 4: goto end leads nowhere"],
            ),
        ] {
            let found = mistakes(script);
            let matches = found
                .iter()
                .zip(&expected)
                .all(|(found, expected)| found.starts_with(expected));
            assert!(found.len() == expected.len() && matches, "{script:?}: {found:?}");
        }
        assert!(mistakes(&format!("#!ipxe\n{}", "#".repeat(70_000)))[0].starts_with("70007 bytes are too many"));
    }
}
