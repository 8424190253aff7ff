//! The script beside every boot program: from wherever iPXE was started, to the bridge.

use std::fmt::Write as _;

/// How often all cards are tried.
const ROUNDS: u32 = 5;

/// A script for iPXE that knows nothing but the bridge's address: it takes the card that is open already, otherwise one after the
/// other, asks for an address on it and goes to the bridge. Runs on iPXE from 2019 to today, BIOS and UEFI, from the network or a disk.
pub fn handover(bridge: &str) -> String {
    let mut script = format!("#!ipxe\necho ipxe-bridge: the boot script comes from {bridge}\n");
    // The card that iPXE was loaded by has its address already, in versions that say which it is.
    let _ = write!(
        script,
        "set round:int32 1\n\
         isset ${{netX/mac}} && isset ${{netX/ip}} || goto round\n\
         chain --replace --autofree {bridge}/boot.ipxe ||\n\
         :round\n\
         set idx:int32 0\n\
         :card\n\
         isset ${{net${{idx}}/mac}} || goto none\n\
         echo ipxe-bridge: trying net${{idx}} ${{net${{idx}}/mac}}, round ${{round}} of {ROUNDS}\n\
         dhcp net${{idx}} || goto next\n\
         chain --replace --autofree {bridge}/boot.ipxe || echo ipxe-bridge: {bridge} cannot be reached through net${{idx}}\n\
         :next\n\
         ifclose net${{idx}} ||\n\
         inc idx\n\
         goto card\n\
         :none\n\
         iseq ${{round}} {ROUNDS} && goto gave_up ||\n\
         inc round\n\
         echo ipxe-bridge: no network card reaches the bridge yet, trying all again in 5 seconds\n\
         sleep 5\n\
         goto round\n\
         :gave_up\n\
         echo ipxe-bridge: no network card of this machine reaches {bridge}, back to the firmware\n\
         sleep 10\n\
         exit 1\n"
    );
    script
}
