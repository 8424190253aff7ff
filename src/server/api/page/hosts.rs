//! The hosts of a page: searched and cut into pages, and only then decided about. Pure.

use crate::boot::decision::Decision;
use crate::boot::inventory::Inventory;
use crate::boot::mac::MacAddr;
use crate::boot::name::ObjectName;

use super::verdict::Verdict;

/// Hosts of a page.
const PAGE: usize = 50;
/// Digits that are more than a chance within a MAC address.
const LEAST_DIGITS: usize = 2;

/// What hosts are searched for.
#[derive(Debug, Default)]
pub struct Search {
    /// As a person wrote it, without blanks around it.
    pub text: String,
    /// The same in the form of names.
    lower: String,
    /// Its hexadecimal digits, if it can be a part of a MAC address.
    digits: Option<String>,
    /// `namespace/name` of an environment.
    environment: Option<String>,
}

/// A part of the hosts, ready to be shown.
#[derive(Debug, Default)]
pub struct List {
    /// Whether something was searched for.
    pub is_filtered: bool,
    /// The environment that was asked for.
    pub environment: Option<String>,
    /// A MAC address that was searched for and that nothing names.
    pub unnamed: Option<MacAddr>,
    /// What is shown.
    pub rows: Vec<Row>,
    /// How many there are in all.
    pub total: usize,
    /// The number of the first and of the last row, from 1.
    pub first: usize,
    /// See `first`.
    pub last: usize,
    /// Which page this is, from 1.
    pub page: usize,
    /// Of how many.
    pub pages: usize,
    /// The way to the page before.
    pub previous: Option<String>,
    /// The way to the page behind.
    pub next: Option<String>,
}

/// A host and what it boots.
#[derive(Debug)]
pub struct Row {
    /// `namespace/name`, or what else names the machine.
    pub name: String,
    /// Its MAC address.
    pub mac: MacAddr,
    /// What it boots.
    pub verdict: Verdict,
}

/// A machine that something names.
#[derive(Debug, Clone, Copy)]
struct Machine<'a> {
    mac: MacAddr,
    name: Option<&'a ObjectName>,
    environment: Option<&'a ObjectName>,
}

impl Search {
    /// What a person wrote; nothing is no search.
    pub fn new(text: Option<&str>, environment: Option<&str>) -> Self {
        let text = text.unwrap_or_default().trim();
        let digits: String = text.chars().filter(|c| !":-. ".contains(*c)).collect();
        let is_mac = digits.len() >= LEAST_DIGITS && digits.chars().all(|c| c.is_ascii_hexdigit());
        Self {
            text: text.to_owned(),
            lower: text.to_lowercase(),
            digits: is_mac.then(|| digits.to_lowercase()),
            environment: environment.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned),
        }
    }

    fn is_any(&self) -> bool {
        self.text.is_empty() && self.environment.is_none()
    }

    fn finds(&self, machine: &Machine) -> bool {
        let environment = machine.environment.map(ToString::to_string);
        if self.environment.is_some() && self.environment != environment {
            return false;
        }
        let has = |text: &str| text.contains(&self.lower);
        let has_digits = |digits: &String| machine.mac.hyphenated().replace('-', "").contains(digits.as_str());
        self.text.is_empty()
            || self.digits.as_ref().is_some_and(has_digits)
            || machine.name.is_some_and(|name| has(&name.to_string()))
            || environment.is_some_and(|name| has(&name))
    }

    /// The way to a page of what is found.
    fn link(&self, page: usize) -> String {
        let mut query = url::form_urlencoded::Serializer::for_suffix(String::from("?"), 1);
        if !self.text.is_empty() {
            query.append_pair("q", &self.text);
        }
        if let Some(environment) = &self.environment {
            query.append_pair("environment", environment);
        }
        query.append_pair("page", &page.to_string());
        format!("{}#hosts", query.finish())
    }
}

impl List {
    /// The page of this number, or the last one if there are fewer.
    pub fn of(inventory: &Inventory, search: &Search, page: usize, decide: impl Fn(MacAddr) -> Decision) -> Self {
        let mut found = machines(inventory);
        if !search.is_any() {
            found.retain(|machine| search.finds(machine));
        }
        let total = found.len();
        let pages = total.div_ceil(PAGE).max(1);
        let page = page.clamp(1, pages);
        let start = (page - 1) * PAGE;
        let shown = found.iter().skip(start).take(PAGE);
        let rows: Vec<Row> = shown
            .map(|machine| Row {
                name: machine
                    .name
                    .map_or_else(|| unnamed(inventory, machine.mac).to_owned(), ToString::to_string),
                mac: machine.mac,
                verdict: Verdict::of(&decide(machine.mac)),
            })
            .collect();
        let searched: Option<MacAddr> = search.text.parse().ok();
        Self {
            is_filtered: !search.is_any(),
            environment: search.environment.clone(),
            unnamed: searched.filter(|mac| found.iter().all(|machine| machine.mac != *mac)),
            total,
            first: start + 1,
            last: start + rows.len(),
            page,
            pages,
            previous: (page > 1).then(|| search.link(page - 1)),
            next: (page < pages).then(|| search.link(page + 1)),
            rows,
        }
    }
}

/// Every BareMetalHost by name, then the machines that only an override or a host file names.
fn machines(inventory: &Inventory) -> Vec<Machine<'_>> {
    let hosts = inventory.all_hosts().into_iter().map(|host| Machine {
        mac: host.mac,
        name: Some(&host.name),
        environment: host.environment.as_ref(),
    });
    let others = inventory
        .known_macs()
        .into_iter()
        .filter(|mac| inventory.hosts(*mac).is_empty());
    hosts
        .chain(others.map(|mac| Machine {
            mac,
            name: None,
            environment: None,
        }))
        .collect()
}

/// What names a machine that no BareMetalHost names.
fn unnamed(inventory: &Inventory, mac: MacAddr) -> &'static str {
    match (inventory.overrides(mac), inventory.host_files(mac)) {
        ([], []) => "Unknown machine",
        ([], _) => "Machine of a host file",
        _ => "Machine of an override",
    }
}

/// The title of a machine's page, and the objects that name it.
pub fn names(inventory: &Inventory, mac: MacAddr) -> (String, String) {
    let hosts = inventory.hosts(mac).iter().map(|host| format!("BareMetalHost {}", host.name));
    let overrides = inventory
        .overrides(mac)
        .iter()
        .map(|by| format!("IpxeHostOverride {}", by.name));
    let files = inventory
        .host_files(mac)
        .iter()
        .map(|file| format!("host file {}", file.file));
    let all: Vec<String> = hosts.chain(overrides).chain(files).collect();
    let title = match inventory.hosts(mac) {
        [] => mac.to_string(),
        [host, ..] => host.name.to_string(),
    };
    let named = match all.is_empty() {
        true => "which no object names".to_owned(),
        false => format!("named by {}", all.join(", ")),
    };
    (title, named)
}
