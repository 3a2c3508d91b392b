//! [`History`]: the last registers that came and went, bounded by their size in memory.

use std::collections::VecDeque;

use super::report::MessageReport;

/// What a message takes beside its texts, about, in bytes.
const MESSAGE_BYTES: usize = 160;

/// The last registers that were written here, and those that were taken from others.
#[derive(Debug, Default)]
pub(super) struct History {
    max_bytes: usize,
    last_id: u64,
    sent: Messages,
    received: Messages,
}

#[derive(Debug, Default)]
struct Messages {
    kept: VecDeque<MessageReport>,
    bytes: usize,
}

impl History {
    /// Keeps at most `max_bytes` in each direction; 0 = nothing.
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, ..Self::default() }
    }

    /// Whether anything is kept at all.
    pub(super) fn is_kept(&self) -> bool {
        self.max_bytes > 0
    }

    /// Notes what was sent, or received. Gives it the next number.
    pub(super) fn add(&mut self, message: MessageReport, sent: bool) {
        self.last_id += 1;
        let message = MessageReport { id: self.last_id, ..message };
        let messages = if sent { &mut self.sent } else { &mut self.received };
        messages.add(message, self.max_bytes);
    }

    /// What was sent, oldest first.
    pub(super) fn sent(&self) -> Vec<MessageReport> {
        self.sent.kept.iter().cloned().collect()
    }

    /// What was received, oldest first.
    pub(super) fn received(&self) -> Vec<MessageReport> {
        self.received.kept.iter().cloned().collect()
    }

    /// Forgets all messages, but not their numbers.
    pub(super) fn clear(&mut self) {
        (self.sent, self.received) = Default::default();
    }
}

impl Messages {
    fn add(&mut self, message: MessageReport, max_bytes: usize) {
        self.bytes += bytes_of(&message);
        self.kept.push_back(message);
        while self.bytes > max_bytes {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.bytes -= bytes_of(&oldest);
        }
    }
}

fn bytes_of(message: &MessageReport) -> usize {
    let MessageReport { key, entry, author, version, .. } = message;
    MESSAGE_BYTES + key.len() + entry.len() + author.len() + version.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(entry: &str) -> MessageReport {
        MessageReport {
            id: 0,
            at_ms: 1,
            key: "ring".into(),
            entry: entry.into(),
            facet: 0,
            size: 1 << 20,
            tombstone: false,
            author: "a".into(),
            version: "0/1.0".into(),
        }
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let mut history = History::new(2 * bytes_of(&message("1")));
        for entry in ["1", "2", "3"] {
            history.add(message(entry), true);
        }
        history.add(message("4"), false);
        let entries = |messages: Vec<MessageReport>| {
            messages.into_iter().map(|message| (message.id, message.entry)).collect::<Vec<_>>()
        };
        assert_eq!(entries(history.sent()), [(2, "2".to_owned()), (3, "3".to_owned())]);
        assert_eq!(entries(history.received()), [(4, "4".to_owned())]);
        history.clear();
        assert!(history.sent().is_empty() && history.received().is_empty());
        history.add(message("5"), true);
        assert_eq!(entries(history.sent()), [(5, "5".to_owned())]);
    }

    #[test]
    fn what_is_too_large_or_not_wanted_is_not_kept() {
        assert!(!History::new(0).is_kept());
        let mut history = History::new(10);
        history.add(message("1"), true);
        assert!(history.sent().is_empty() && history.sent.bytes == 0);
    }
}
