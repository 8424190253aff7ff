//! Scripts that the bridge writes itself, and what it adds to upstream's.

use std::fmt::Write as _;

use super::artifact::PublicUrl;
use super::decision::{Boot, Decision};
use super::inventory::Inventory;
use super::kernel_arguments::ArgumentEdits;
use super::local_disk::LocalDisk;
use super::mac::MacAddr;
use super::name::ObjectName;
use super::script::{BootScript, Rewrite, ScriptError};
use super::template::Values;
use super::way::{self, Way};

/// How often a script tries to load and boot before it gives the machine back to its firmware.
const ATTEMPTS: u32 = 5;

/// A text as iPXE's `echo` can print it: white space collapsed, and nothing left that iPXE would read as syntax.
pub fn console_text(text: &str) -> String {
    // First what iPXE cannot print goes, so that nothing becomes syntax by its going.
    let plain: String = text
        .chars()
        .filter(|c| (c.is_ascii() && *c != '\\') || c.is_whitespace())
        .collect();
    let words = plain
        .split(|c: char| c.is_whitespace() || c.is_control())
        .map(|word| match word {
            "&&" => "and".to_owned(),
            "||" => "or".to_owned(),
            ";" => ",".to_owned(),
            word => word.replace("${", "$ {").trim_start_matches('#').to_owned(),
        });
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The script of a decision that needs nothing from upstream; `None` where the answer is a 404 or an environment's script.
pub fn own_script(decision: &Decision, local_disk: LocalDisk, (bridge, boot): (&PublicUrl, Option<&str>)) -> Option<String> {
    match &decision.boot {
        Boot::Template(filled) => {
            let values = Values {
                mac: decision.mac,
                bridge,
                boot,
                host: filled.host.as_ref(),
                environment: filled.environment.as_ref(),
            };
            // The decision looked whether all have a value.
            filled.template.render(&values).ok()
        }
        Boot::LocalDisk(method) => local_disk_script(decision.mac, decision.reason(), method.unwrap_or(local_disk)),
        Boot::Script(script) => Some(script.to_string()),
        Boot::Chain(url) => Some(chain_script(decision.mac, decision.reason(), url)),
        Boot::File(file) => Some(file.script.clone()),
        Boot::Shell => Some(format!(
            "#!ipxe\n{}dhcp\nshell\n",
            say(&format!("{}: {}", decision.mac, decision.reason()))
        )),
        Boot::Stop(why) => Some(stop_script(decision.mac, why)),
        Boot::Environment(..) | Boot::Nothing | Boot::NotYet(_) => None,
    }
}

/// Sends a machine to its own disk; `None` where that is done by a 404.
pub fn local_disk_script(mac: MacAddr, reason: &str, method: LocalDisk) -> Option<String> {
    let command = method.command()?;
    let said = say(&format!("{mac} boots its own disk: {reason}"));
    Some(format!("#!ipxe\n{said}{command}\n"))
}

/// Hands a machine over to another server.
fn chain_script(mac: MacAddr, reason: &str, url: &str) -> String {
    format!(
        "#!ipxe\n{}chain --replace --autofree {url} ||\n{}sleep 10\nexit 1\n",
        say(&format!("{mac}: {reason}")),
        say(&format!("{url} could not be loaded, back to the firmware"))
    )
}

/// Hands a machine back to its firmware, which goes on to the next boot device.
pub fn nothing_script(mac: MacAddr, reason: &str) -> String {
    format!(
        "#!ipxe\n{}exit 1\n",
        say(&format!("{mac} has nothing to boot from the network: {reason}"))
    )
}

/// Stops a machine with a message, and asks again every minute whether the contradiction is solved.
pub fn stop_script(mac: MacAddr, why: &str) -> String {
    format!(
        "#!ipxe\n{}{}:ask\nsleep 60\nchain --replace --autofree {} ||\ngoto ask\n",
        say(&format!("{mac} is not booted, a person must decide: {why}")),
        say("asking again in a minute"),
        mac.hyphenated()
    )
}

/// An environment's script for one machine: upstream's commands with the bridge's addresses, framed by what makes a boot sturdy.
pub fn environment_script(
    upstream: &BootScript,
    machine: Option<MacAddr>,
    origin: &str,
    environment: &ObjectName,
    (bridge, boot): (&PublicUrl, Option<&str>),
    arguments: &[&ArgumentEdits],
) -> Result<String, ScriptError> {
    let who = machine.map_or_else(|| "this machine".to_owned(), |mac| mac.to_string());
    let mut prologue = say(&format!("{who} boots InfraEnv {environment}: {origin}"));
    prologue.push_str("set attempt:int32 1\n:ipxe_bridge_attempt\nimgfree\n");
    let epilogue = format!(
        ":ipxe_bridge_failed\n\
         iseq ${{attempt}} {ATTEMPTS} && goto ipxe_bridge_gave_up ||\n\
         echo ipxe-bridge: attempt ${{attempt}} of {ATTEMPTS} failed, trying again in 5 seconds\n\
         sleep 5\n\
         inc attempt\n\
         goto ipxe_bridge_attempt\n\
         :ipxe_bridge_gave_up\n\
         {}\
         sleep 10\n\
         exit 1\n",
        say(&format!(
            "{who} could not load InfraEnv {environment} from {bridge} in {ATTEMPTS} attempts, back to the firmware"
        ))
    );
    upstream.rewrite(&Rewrite {
        url: &|kind| bridge.artifact(kind, environment, boot),
        arguments: &|line| arguments.iter().fold(line.to_owned(), |line, edits| edits.apply(&line)),
        prologue: &prologue,
        on_failure: Some("ipxe_bridge_failed"),
        epilogue: &epilogue,
    })
}

/// How many network cards the bootstrap script tells the bridge of.
const NICS: u32 = 8;

/// The script behind `/boot.ipxe`: the same for every machine, from iPXE of 2019 to today.
///
/// How a machine came, if that is known, is handed on. It asks once, with the booting card's address in the path and those of all cards behind it, and the bridge looks for the first it
/// knows. A loop of requests on the machine could take a broken connection for "unknown" and boot something else.
pub fn bootstrap_script(way: Option<&Way>) -> String {
    let nics: Vec<String> = (0..NICS).map(|index| format!("${{net{index}/mac:hexhyp}}")).collect();
    format!(
        "#!ipxe\n\
         isset ${{netX/mac}} || dhcp || echo ipxe-bridge: no answer from DHCP\n\
         set attempt:int32 1\n\
         :ask\n\
         chain --replace --autofree ipxe-mac-boot/${{netX/mac:hexhyp}}?nics={} ||\n\
         iseq ${{attempt}} {ATTEMPTS} && goto gave_up ||\n\
         echo ipxe-bridge: no boot script for this machine yet, attempt ${{attempt}} of {ATTEMPTS}\n\
         sleep 5\n\
         inc attempt\n\
         goto ask\n\
         :gave_up\n\
         echo ipxe-bridge: no boot script for any network card of this machine ${{uuid}}\n\
         sleep 10\n\
         exit 1\n",
        nics.join(",") + &way.map(|way| format!("&{}={way}", way::PARAMETER)).unwrap_or_default()
    )
}

/// The script behind `/ipxe-boot`: one for all hosts. Every card is looked up before anything boots, then comes the default.
pub fn dispatch_script(inventory: &Inventory) -> String {
    let mut script = String::from(
        "#!ipxe\n\
         isset ${netX/mac} || dhcp || echo ipxe-bridge: no answer from DHCP\n\
         set idx:int32 0\n\
         :nic\n\
         isset ${net${idx}/mac} || goto default\n",
    );
    for mac in inventory.known_macs() {
        // Writing to a String cannot fail.
        let _ = writeln!(script, "iseq ${{net${{idx}}/mac}} {mac} && goto host ||");
    }
    script.push_str(
        "inc idx\n\
         goto nic\n\
         :host\n\
         chain --replace --autofree ipxe-mac-boot/${net${idx}/mac:hexhyp} || goto failed\n\
         :default\n\
         chain --replace --autofree ipxe-mac-boot/${netX/mac:hexhyp} || goto failed\n\
         :failed\n\
         echo ipxe-bridge: this machine has no boot script or it could not be loaded\n\
         sleep 10\n\
         exit 1\n",
    );
    script
}

fn say(text: &str) -> String {
    format!("echo ipxe-bridge: {}\n", console_text(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_on_the_console_is_read_as_syntax() {
        for (text, said) in [
            ("a  b\nc\r\n", "a b c"),
            ("x || y && z ; w", "x or y and z , w"),
            ("#!ipxe ${net0/mac} \\", "!ipxe $ {net0/mac}"),
            ("$\\{net0/mac} &é& poweroff #\\# x", "$ {net0/mac} and poweroff x"),
            ("tür", "tr"),
        ] {
            assert_eq!(console_text(text), said);
        }
    }

    #[test]
    fn no_way_to_the_disk_reports_success_to_uefi() {
        let mac = "52:54:00:cc:00:01".parse().expect("valid");
        for method in [LocalDisk::Platform, LocalDisk::Exit, LocalDisk::Sanboot, LocalDisk::NotFound] {
            match local_disk_script(mac, "it is installed", method) {
                Some(script) => assert!(!script.contains("exit 0") && script.starts_with("#!ipxe\necho "), "{script}"),
                None => assert_eq!(method, LocalDisk::NotFound),
            }
        }
    }
}
