//! The same objects from a folder of YAML: followed for changes, one bad file never stops the others.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, fs};

use serde::{Deserialize, Serialize};

use crate::boot::inventory::Skipped;
use crate::crd::foreign::{Agent, BareMetalHost, InfraEnv, Kind, StrictObject};
use crate::crd::host_override::HostOverrideKind;

use super::contents;
use super::convert::{self, Convert};
use super::files::{self, Changes};
use super::sources::{Item, Sources};
use super::yaml::{Wrong, parse};

/// Name of the source.
pub const SOURCE: &str = "manifests";
/// The largest file that is read; ten thousand hosts need about 3 MiB.
const MAX_FILE: u64 = 64 * 1024 * 1024;

/// Follows the folder, for ever.
pub async fn follow(directory: PathBuf, period: Duration, sources: Arc<Sources>) {
    let mut changes = Changes::below(std::slice::from_ref(&directory), period);
    let mut folder = Folder::default();
    loop {
        let path = directory.clone();
        let read = tokio::task::spawn_blocking(move || {
            let result = folder.read(&path);
            (folder, result)
        });
        match read.await {
            Ok((read, result)) => {
                folder = read;
                match result {
                    Ok(()) => sources.replace(SOURCE, folder.items()),
                    Err(error) => {
                        tracing::warn!(%error, directory = %directory.display(), "the manifests cannot be read, the last ones stay");
                        sources.behind(SOURCE, error.to_string());
                    }
                }
            }
            Err(error) => {
                tracing::error!(%error, "reading the manifests failed");
                folder = Folder::default();
            }
        }
        changes.next().await;
    }
}

/// Where something is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The file, relative to the folder that was read.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line {}", self.file, self.line)
    }
}

impl Place {
    /// The place that a text says, as it is printed.
    pub fn parse(text: &str) -> Option<Self> {
        let (file, line) = text.rsplit_once(" line ")?;
        Some(Self {
            file: file.to_owned(),
            line: line.parse().ok()?,
        })
    }
}

/// What a folder or file holds.
#[derive(Debug)]
pub struct ReadOnce {
    /// Its objects, by a key of their own.
    pub items: HashMap<String, Item>,
    /// Where each object is written, by kind, namespace and name.
    pub places: BTreeMap<String, Place>,
}

/// Everything in a folder, or in one file, as it is now.
pub fn read_once(path: &Path) -> std::io::Result<ReadOnce> {
    let mut folder = Folder::default();
    match path.is_dir() {
        true => folder.read(path)?,
        false => folder.read_files(path.parent().unwrap_or(path), vec![path.to_owned()]),
    }
    Ok(folder.whole())
}

/// Everything in a text, as if it were a file of this name.
pub fn read_text(name: &str, text: String) -> ReadOnce {
    let mut file = File::default();
    file.update(name, text);
    let mut folder = Folder::default();
    folder.files.insert(name.into(), file);
    folder.whole()
}

/// What was read from a folder.
#[derive(Debug, Default)]
struct Folder {
    files: BTreeMap<PathBuf, File>,
}

/// One file: its text, the objects of its last good text, and what is wrong with its present one.
#[derive(Debug, Default)]
struct File {
    text: String,
    objects: Vec<Written>,
    /// Whether the objects are those of a text without a mistake.
    is_good: bool,
    wrong: Vec<Skipped>,
    /// Why it cannot be read at all, for as long as that lasts.
    unreadable: Option<Skipped>,
}

/// An object and where it is written.
#[derive(Debug)]
struct Written {
    key: String,
    item: Item,
    place: Place,
}

impl Folder {
    /// Reads what changed. Fails only if the folder itself cannot be read; then nothing is forgotten.
    fn read(&mut self, directory: &Path) -> std::io::Result<()> {
        let mut paths = Vec::new();
        list(directory, &mut paths, &mut HashSet::new())?;
        paths.sort();
        self.read_files(directory, paths);
        Ok(())
    }

    fn read_files(&mut self, directory: &Path, paths: Vec<PathBuf>) {
        self.files.retain(|path, _| paths.binary_search(path).is_ok());
        for path in paths {
            let shown = path.strip_prefix(directory).unwrap_or(&path).display().to_string();
            let file = self.files.entry(path.clone()).or_default();
            match files::read_text(&path, MAX_FILE) {
                Ok(text) if text == file.text => file.unreadable = None,
                Ok(text) => file.update(&shown, text),
                Err(cause) => file.unreadable = Some(skipped("file", shown, cause)),
            }
        }
    }

    /// All objects, and where they are written.
    fn whole(&self) -> ReadOnce {
        let objects = self.files.values().flat_map(|file| &file.objects);
        let places = objects.map(|object| (object.key.clone(), object.place.clone()));
        ReadOnce {
            // Of two with one name the first counts.
            places: places.rev().collect(),
            items: self.items(),
        }
    }

    /// All objects; of two with one kind and name the one in the first file counts.
    fn items(&self) -> HashMap<String, Item> {
        let mut items: HashMap<String, Item> = HashMap::new();
        for (path, file) in &self.files {
            for wrong in file.wrong.iter().chain(&file.unreadable) {
                items.insert(format!("{} {}", path.display(), wrong.object), Item::Skipped(wrong.clone()));
            }
            for Written { key, item, .. } in &file.objects {
                if items.contains_key(key) {
                    let (kind, object) = key.split_once(' ').unwrap_or(("object", key));
                    let cause = format!("{} has it a second time, only the first counts", path.display());
                    items.insert(
                        format!("{} {key}", path.display()),
                        Item::Skipped(skipped(kind, object.to_owned(), cause)),
                    );
                } else {
                    items.insert(key.clone(), item.clone());
                }
            }
        }
        items
    }
}

impl File {
    /// Takes a new text. If anything in it is wrong the objects of the last good text stay: a typing error must not make a machine
    /// unknown. A file that was never good gives what can be read of it.
    fn update(&mut self, shown: &str, text: String) {
        let mut objects = Vec::new();
        let mut wrong = Vec::new();
        if text.trim().is_empty() && !self.objects.is_empty() {
            // What an editor or a copy leaves for a moment before it writes.
            wrong.push(skipped(
                "file",
                shown.to_owned(),
                "the file is empty: remove it if its objects are to go".to_owned(),
            ));
        }
        for (line, document) in documents(&text) {
            let (found, errors) = read_document(document);
            let place = |line| Place {
                file: shown.to_owned(),
                line,
            };
            let first = line
                + document
                    .lines()
                    .take_while(|line| is_blank(line) || line.starts_with("---"))
                    .count();
            objects.extend(found.into_iter().map(|(key, item)| Written {
                key,
                item,
                place: place(first),
            }));
            for (at, cause) in errors {
                wrong.push(skipped(
                    "file",
                    place(if at == 0 { first } else { line + at - 1 }).to_string(),
                    cause,
                ));
            }
        }
        for wrong in &wrong {
            let kept = match self.is_good {
                true => "the file's last good state stays",
                false => "the rest of the file is used",
            };
            tracing::warn!("{}: {}; {kept}", wrong.object, wrong.cause);
        }
        if wrong.is_empty() || !self.is_good {
            self.objects = objects;
            self.is_good = wrong.is_empty();
        }
        self.wrong = wrong;
        self.unreadable = None;
        self.text = text;
    }
}

fn skipped(kind: &str, object: String, cause: String) -> Skipped {
    Skipped {
        kind: kind.to_owned(),
        object,
        cause,
    }
}

/// All YAML and JSON files below a folder, links followed, dot files and kustomize's own file left out. A folder that was seen is not
/// entered again: links may lead in a circle.
fn list(directory: &Path, paths: &mut Vec<PathBuf>, seen: &mut HashSet<(u64, u64)>) -> std::io::Result<()> {
    let place = fs::metadata(directory)?;
    if !seen.insert((place.dev(), place.ino())) {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || ["kustomization.yaml", "kustomization.yml"].contains(&name.as_ref()) {
            continue;
        }
        let extension = path.extension().unwrap_or_default();
        let wanted = ["yaml", "yml", "json"].iter().any(|wanted| extension == *wanted);
        if path.is_dir() {
            list(&path, paths, seen)?;
        } else if wanted {
            paths.push(path);
        }
    }
    Ok(())
}

/// The documents of a YAML stream, each with the number of its first line. `---` at the start of a line always begins a document
/// (YAML 1.2.2, 9.1.2), also inside a block text.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut at) = (0, 1, 0);
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let is_marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if is_marker {
            documents.push((first_line, &text[start..at]));
            start = at + 3;
            first_line = index + 1;
        }
        at += line.len();
    }
    documents.push((first_line, &text[start..]));
    documents
}

fn is_blank(line: &str) -> bool {
    line.trim().is_empty() || line.trim_start().starts_with('#')
}

/// Kind and version of a document, and the members if it is a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Header {
    api_version: String,
    kind: String,
    items: Vec<serde_json::Value>,
}

/// An object with its key, and what is wrong with it: either, both or none.
type Read = (Option<(String, Item)>, Option<Wrong>);

/// The objects of one document, and what is wrong with it or with members of its list. Kinds that the bridge does not read are passed
/// over: a folder of Git holds other things too.
fn read_document(document: &str) -> (Vec<(String, Item)>, Vec<Wrong>) {
    if document.lines().all(is_blank) {
        return (Vec::new(), Vec::new());
    }
    let header: Header = match parse(document) {
        Ok(header) => header,
        Err(error) => return (Vec::new(), vec![error]),
    };
    if header.kind == "List" || header.kind.ends_with("List") && !header.items.is_empty() {
        let (mut objects, mut errors) = (Vec::new(), Vec::new());
        for (index, item) in header.items.iter().enumerate() {
            let (found, wrong) = read_document(&item.to_string());
            objects.extend(found);
            // Nothing but a document of its own has line numbers: a member is named by its place in the list.
            errors.extend(wrong.into_iter().map(|(_, cause)| (0, format!("items[{index}]: {cause}"))));
        }
        return (objects, errors);
    }
    let (object, error) = read_known(&header, document);
    (object.into_iter().collect(), error.into_iter().collect())
}

fn read_known(header: &Header, document: &str) -> Read {
    if header.kind.is_empty() || header.api_version.is_empty() {
        return (None, Some((0, "expected an object with apiVersion and kind".to_owned())));
    }
    match header.kind.as_str() {
        "ConfigMap" | "Secret" if header.api_version == "v1" => (contents::of_document(&header.kind, document), None),
        InfraEnv::KIND => read_object::<InfraEnv>(header, document),
        BareMetalHost::KIND => read_object::<BareMetalHost>(header, document),
        Agent::KIND => read_object::<Agent>(header, document),
        HostOverrideKind::KIND => read_object::<HostOverrideKind>(header, document),
        _ => (None, None),
    }
}

fn read_object<K: Convert>(header: &Header, document: &str) -> Read {
    let expected = format!("{}/{}", K::GROUP, K::VERSION);
    if header.api_version != expected {
        let found = &header.api_version;
        let cause = format!("{} of apiVersion {found} is not known, expected {expected}", K::KIND);
        return (None, Some((0, cause)));
    }
    let mut object: StrictObject<K> = match parse(document) {
        Ok(object) => object,
        Err(error) => return (None, Some(error)),
    };
    object.metadata.namespace.get_or_insert_with(|| "default".to_owned());
    let key = format!("{} {}", K::KIND, convert::key(&object.metadata));
    let converted = K::convert(&object.metadata, &object.spec, &object.status);
    let converted = match unknown_field::<K>(document) {
        Some(field) => convert::refuse(converted, format!("{field} is no field of {}", K::KIND)),
        None => converted,
    };
    match converted {
        Ok(item) => (item.map(|item| (key, item)), None),
        Err(refusal) => {
            let cause = format!("{key}: {}", refusal.cause);
            (refusal.rest.map(|item| (key, item)), Some((0, cause)))
        }
    }
}

/// The first field of a spec of the bridge's own kinds that nobody reads: a typing error in `bootLimit` must not make an override that
/// never ends. Kinds of others have many such fields.
fn unknown_field<K: Kind>(document: &str) -> Option<String> {
    if K::GROUP != HostOverrideKind::GROUP {
        return None;
    }
    let value: serde_json::Value = parse(document).ok()?;
    let mut unknown = None;
    let _ = serde_ignored::deserialize::<_, _, StrictObject<K>>(value, |path| {
        let path = path.to_string();
        if path.starts_with("spec.") {
            unknown.get_or_insert(path);
        }
    });
    unknown
}
