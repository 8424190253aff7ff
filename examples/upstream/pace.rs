//! A limit on bytes a second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Time that was not used counts for so long: a timer that rings late must not make the whole slower.
const CREDIT: Duration = Duration::from_millis(50);

/// Lets so many bytes pass in a second, however many ask.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When everything that was let pass so far is paid for.
    paid: Mutex<Instant>,
}

impl Pace {
    /// At least one byte a second.
    pub fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            paid: Mutex::new(Instant::now()),
        }
    }

    /// Returns when these bytes may go.
    pub async fn pass(&self, bytes: u64) {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let paid = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            *paid = now.checked_sub(CREDIT).map_or(*paid, |earliest| earliest.max(*paid)) + cost;
            *paid
        };
        sleep_until(paid).await;
    }
}
