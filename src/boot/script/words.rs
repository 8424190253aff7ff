//! The words of an iPXE script, split as iPXE splits them.

use std::ops::Range;

use super::ScriptError;

/// A word of a script and where it stands.
#[derive(Debug, Clone)]
pub struct Word<'t> {
    /// The word itself.
    pub text: &'t str,
    /// Its place in the whole text.
    pub range: Range<usize>,
}

/// One command: its words, from the name on.
#[derive(Debug)]
pub struct Command<'t> {
    /// The name and everything behind it.
    pub words: Vec<Word<'t>>,
    /// Number of the line it begins in, from 1.
    pub line: usize,
    /// Nothing follows it on its line.
    pub is_last_of_line: bool,
}

impl<'t> Command<'t> {
    /// The command's name.
    pub fn name(&self) -> &'t str {
        self.words.first().map_or("", |word| word.text)
    }

    /// The place behind its last word.
    pub fn end(&self) -> usize {
        self.words.last().map_or(0, |word| word.range.end)
    }

    /// The words before the first that is no option: iPXE stops reading options there.
    fn options(&self) -> &[Word<'t>] {
        let mut index = 1;
        while let Some(word) = self.words.get(index).filter(|word| word.text.starts_with('-')) {
            index += match word.text {
                "--name" | "-n" | "--timeout" | "-t" => 2,
                _ => 1,
            };
        }
        &self.words[..index.min(self.words.len())]
    }

    /// Whether it names the image it loads.
    pub fn has_name(&self) -> bool {
        self.options()
            .iter()
            .any(|word| matches!(word.text, "--name" | "-n") || word.text.starts_with("--name="))
    }

    /// The address it loads from: the first word that is no option.
    pub fn url(&self, command: &'static str) -> Result<Word<'t>, ScriptError> {
        self.words
            .get(self.options().len())
            .filter(|word| word.text.starts_with("http://") || word.text.starts_with("https://"))
            .cloned()
            .ok_or(ScriptError::NoUrl {
                line: self.line,
                command,
            })
    }
}

/// All commands of a script, as iPXE would split them.
pub fn commands(text: &str) -> Vec<Command<'_>> {
    let mut commands = Vec::new();
    let mut words: Vec<Word> = Vec::new();
    let mut start_of_line = 0;
    let mut first_line_of_command = 1;
    for (index, raw) in text.split_inclusive('\n').enumerate() {
        let offset = start_of_line;
        start_of_line += raw.len();
        let line = raw.trim_end_matches('\n');
        let line = line.strip_suffix('\r').unwrap_or(line);
        let (line, continues) = match line.strip_suffix('\\') {
            Some(line) => (line, true),
            None => (line, false),
        };
        if words.is_empty() {
            first_line_of_command = index + 1;
        }
        words.extend(split(line, offset));
        if !continues {
            end_of_line(std::mem::take(&mut words), first_line_of_command, &mut commands);
        }
    }
    end_of_line(words, first_line_of_command, &mut commands);
    commands
}

/// Splits the words of a whole line into commands.
fn end_of_line<'t>(mut words: Vec<Word<'t>>, line: usize, commands: &mut Vec<Command<'t>>) {
    let comment = words.iter().position(|word| word.text.starts_with('#'));
    let has_comment = comment.is_some();
    words.truncate(comment.unwrap_or(words.len()));
    if words.first().is_some_and(|word| word.text.starts_with(':')) {
        words.remove(0);
    }
    let mut parts = words.split(|word| matches!(word.text, "&&" | "||" | ";")).peekable();
    while let Some(part) = parts.next() {
        if !part.is_empty() {
            commands.push(Command {
                words: part.to_vec(),
                line,
                is_last_of_line: parts.peek().is_none() && !has_comment,
            });
        }
    }
}

/// Words of a line with their places in the whole text.
fn split(line: &str, offset: usize) -> impl Iterator<Item = Word<'_>> {
    line.split(|c: char| c.is_ascii_whitespace() || c == '\x0b')
        .scan(offset, |at, text| {
            let start = *at;
            *at += text.len() + 1;
            Some(Word {
                text,
                range: start..start + text.len(),
            })
        })
        .filter(|word| !word.text.is_empty())
}
