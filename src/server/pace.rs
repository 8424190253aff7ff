//! Limits of bytes a second: for old network cards, and for a link that others need too.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a sender may be ahead of its rate after a pause.
const BURST: Duration = Duration::from_millis(100);

/// A limit that many may share. Who comes first goes first, so that nobody waits for more than what was asked for before.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: NonZeroU64,
    /// When everything that was let through so far is over.
    busy_until: Mutex<Instant>,
}

impl Pace {
    /// A limit of so many bytes a second.
    pub fn new(bytes_per_second: NonZeroU64) -> Self {
        Self {
            bytes_per_second,
            busy_until: Mutex::new(Instant::now()),
        }
    }

    /// Returns when so many bytes may be sent.
    pub async fn admit(&self, bytes: usize) {
        tokio::time::sleep_until(self.book(bytes, Instant::now())).await;
    }

    /// Takes the next time that is free for so many bytes; when it begins.
    fn book(&self, bytes: usize, now: Instant) -> Instant {
        let mut busy_until = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*busy_until).max(now.checked_sub(BURST).unwrap_or(now));
        *busy_until = begin + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second.get() as f64);
        begin
    }

    /// The largest piece that does not make the flow jerky, in bytes: an eighth of a second's.
    pub fn piece(&self) -> usize {
        let eighth = usize::try_from(self.bytes_per_second.get() / 8).unwrap_or(usize::MAX);
        eighth.max(4096)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_limit_is_kept_and_who_comes_first_goes_first() {
        let pace = Pace::new(NonZeroU64::new(1000).expect("not 0"));
        let now = Instant::now();
        let begins: Vec<_> = (0..40).map(|_| pace.book(100, now)).collect();
        assert!(begins.is_sorted());
        assert_eq!(begins[39] - begins[0], Duration::from_millis(3900), "100 bytes take 100 ms");
        // After a pause nobody may be ahead for more than the burst.
        let later = now + Duration::from_secs(60);
        let begins: Vec<_> = (0..3).map(|_| pace.book(100, later)).collect();
        assert_eq!(begins[0] + BURST, later);
        assert_eq!(begins[2] - later, Duration::from_millis(100));
    }
}
