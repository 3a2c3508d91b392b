//! [`Drainable`]: what can be taken out of service while the process runs, and how far that is. How it is done is up to those
//! who implement it; asking for it, to whoever listens.

use std::fmt;
use std::time::Duration;

/// How far a drain has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nobody has asked for it.
    None,
    /// The others are being told that nothing new is to be sent.
    ReadOnly,
    /// Conditions do not hold yet.
    Waiting,
    /// The others are being told that it goes.
    Leaving,
    /// All is done; the process ends.
    Done,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::ReadOnly => "readonly",
            Self::Waiting => "waiting",
            Self::Leaving => "leaving",
            Self::Done => "done",
        })
    }
}

/// Where a drain stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What is drained.
    pub instance: String,
    /// How far it has got.
    pub stage: Stage,
    /// The state that the others see it in.
    pub state: String,
    /// Whether it goes although something is missing, or others would suffer.
    pub forced: bool,
    /// What is missing, in plain words.
    pub missing: Vec<String>,
    /// How long that will take, if that is known.
    pub estimate: Option<Duration>,
}

/// Something that can be taken out of service.
pub trait Drainable: fmt::Debug + Send + Sync {
    /// Where it stands.
    fn progress(&self) -> Progress;

    /// Whether it may begin: the others can do without.
    ///
    /// # Errors
    ///
    /// Why not, in plain words.
    fn may_begin(&self) -> Result<(), String>;

    /// Begins, or, when it has begun, goes on; with `force` without regard to anybody, also when it had begun without. Returns
    /// at once.
    ///
    /// # Errors
    ///
    /// As [`Drainable::may_begin`], unless forced.
    fn begin(&self, force: bool) -> Result<(), String>;
}
