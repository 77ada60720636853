//! What clients notice of a switch: the longest that one of their calls took while it went on.

use super::stats::Times;
use std::time::Duration;
use tokio::time::Instant;

/// One piece of work of a client that does one after the other: from when it was first asked for until it was done, however often
/// it had to be tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Work {
    pub(super) asked: Instant,
    pub(super) done: Instant,
}

impl Work {
    fn took(&self) -> Duration {
        self.done.duration_since(self.asked)
    }
}

/// From when a switch was asked for until it was seen to have ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) from: Instant,
    pub(super) to: Instant,
}

impl Window {
    fn meets(&self, work: &Work) -> bool {
        self.from <= work.done && work.asked <= self.to
    }
}

/// The longest piece of work of all clients that a switch met, and how many it met.
pub(super) fn pause(clients: &[Vec<Work>], window: Window) -> (Duration, usize) {
    let met = clients.iter().flatten().filter(|work| window.meets(work));
    met.fold((Duration::ZERO, 0), |(longest, count), work| (longest.max(work.took()), count + 1))
}

/// All work that no switch met.
pub(super) fn outside(clients: &[Vec<Work>], windows: &[Window]) -> Times {
    let quiet = |work: &&Work| !windows.iter().any(|window| window.meets(work));
    Times::of(clients.iter().flatten().filter(quiet).map(Work::took).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_the_longest_work_that_the_switch_met_at_all() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let work = |from, to| Work { asked: at(from), done: at(to) };
        let clients =
            [vec![work(0, 90), work(90, 150), work(150, 152)], vec![work(180, 260), work(260, 900)]];
        let window = Window { from: at(100), to: at(200) };
        assert_eq!(pause(&clients, window), (Duration::from_millis(80), 3));
        let quiet = outside(&clients, &[window]);
        assert_eq!((quiet.count(), quiet.longest()), (2, Duration::from_millis(640)));
        assert_eq!(pause(&[], window), (Duration::ZERO, 0));
    }
}
