//! What can go wrong on purpose, and how often.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

/// What a fault applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// The iPXE script of every environment.
    Script,
    /// The kernel.
    Kernel,
    /// The root file system.
    Rootfs,
    /// The initrd of every environment.
    Initrd,
}

/// One way to misbehave.
///
/// The first group replaces the answer or comes before it and hits `HEAD` as well. The second group hits only answers that send the
/// body of a success, and among those only the ones that are long enough for it to happen.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status. The body is empty, as from an image service that is not ready; an initrd's other errors name the internal URL
    /// with its token, as the real ones do.
    Status(u16),
    /// 302 to this address.
    Redirect(String),
    /// 200 with this body instead of the real one.
    Body(Bytes),
    /// 200 with a body that never ends, without a length.
    Endless,
    /// Wait so long, then answer as usual.
    Delay(Duration),

    /// Close the connection after so many bytes of the answer.
    CutAfter(u64),
    /// Close the connection whenever the download passes a multiple of so many bytes of the artifact: a client that resumes gets on.
    CutEvery(u64),
    /// Send nothing more after so many bytes of the answer, and keep the connection open.
    StallAfter(u64),
    /// Switch to a new build after so many bytes of the answer, and close the connection.
    ChangeBuildAfter(u64),
    /// Send no faster than this.
    Slow {
        /// The limit.
        bytes_per_second: u64,
    },
    /// State a length that is so much longer or shorter. Too long ends in a closed connection; too short looks complete, and is cut.
    WrongLength(i64),
}

/// What becomes of the body of one answer.
#[derive(Debug, Clone, Default)]
pub struct Flow {
    /// The position of the artifact where something happens.
    pub stop: Option<(u64, Stop)>,
    /// Bytes a second.
    pub rate: Option<u64>,
    /// To be added to the stated length.
    pub length_off_by: i64,
}

/// What happens at the position.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    /// The connection closes.
    Cut,
    /// Nothing more comes.
    Stall,
    /// The artifacts become another build, then the connection closes.
    ChangeBuild,
}

/// The faults that are switched on, one per target.
#[derive(Debug, Default)]
pub struct Faults {
    active: HashMap<Target, (Fault, Option<u32>)>,
}

impl Faults {
    /// Switches a fault on for so many answers, or until it is cleared.
    pub fn set(&mut self, target: Target, fault: Option<Fault>, times: Option<u32>) {
        match fault {
            Some(fault) if times != Some(0) => self.active.insert(target, (fault, times)),
            _ => self.active.remove(&target),
        };
    }

    /// Whether a fault is still switched on.
    pub fn is_set(&self, target: Target) -> bool {
        self.active.contains_key(&target)
    }

    /// The fault of the first group to apply to a request, which counts as one time.
    pub fn take_answer(&mut self, target: Target) -> Option<Fault> {
        let (fault, _) = self.active.get(&target)?;
        match fault {
            Fault::Status(_) | Fault::Redirect(_) | Fault::Body(_) | Fault::Endless | Fault::Delay(_) => {
                let fault = fault.clone();
                self.count(target);
                Some(fault)
            }
            _ => None,
        }
    }

    /// What the fault of the second group does to an answer with these bytes of the artifact, which counts as one time.
    pub fn take_flow(&mut self, target: Target, range: &Range<u64>) -> Flow {
        let Some((fault, _)) = self.active.get(&target) else {
            return Flow::default();
        };
        let after = |bytes: u64, stop| Flow {
            stop: Some((range.start.saturating_add(bytes), stop)),
            ..Flow::default()
        };
        let flow = match *fault {
            Fault::CutAfter(bytes) => after(bytes, Stop::Cut),
            Fault::CutEvery(bytes) => {
                let every = bytes.max(1);
                after(every - range.start % every, Stop::Cut)
            }
            Fault::StallAfter(bytes) => after(bytes, Stop::Stall),
            Fault::ChangeBuildAfter(bytes) => after(bytes, Stop::ChangeBuild),
            Fault::Slow { bytes_per_second } => Flow {
                rate: Some(bytes_per_second.max(1)),
                ..Flow::default()
            },
            Fault::WrongLength(off) => Flow {
                length_off_by: off,
                ..Flow::default()
            },
            _ => return Flow::default(),
        };
        if flow.stop.is_some_and(|(position, _)| position >= range.end) {
            return Flow::default();
        }
        self.count(target);
        flow
    }

    fn count(&mut self, target: Target) {
        if let Some((_, Some(times))) = self.active.get_mut(&target) {
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.active.remove(&target);
            }
        }
    }
}
