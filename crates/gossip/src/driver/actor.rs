//! [`Actor`]: the task that owns a member.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::datagrams::BUFFER_BYTES;
use super::machine::Machine;
use super::shared::Incoming;
use super::{Access, Observer};
use crate::api::Phase;

/// How many datagrams of a socket are taken at a time, so that the rest gets its turn when there is no end of them.
const DATAGRAMS_PER_TURN: usize = 64;
/// How long the last datagrams of a member that has left may take, where they travel over TCP.
const FLUSH: Duration = Duration::from_secs(1);

/// Something to be done on the member's task.
pub(super) type Job<O> = Box<dyn FnOnce(&mut Access<'_, O>) + Send>;

/// A member, who observes it, and what comes to it.
pub(super) struct Actor<O> {
    observer: O,
    machine: Machine,
    jobs: mpsc::Receiver<Job<O>>,
    incoming: mpsc::Receiver<Incoming>,
    /// Of one datagram.
    buffer: Vec<u8>,
}

impl<O: Observer> Actor<O> {
    pub(super) fn new(
        observer: O,
        machine: Machine,
        jobs: mpsc::Receiver<Job<O>>,
        incoming: mpsc::Receiver<Incoming>,
    ) -> Self {
        Self { observer, machine, jobs, incoming, buffer: vec![0; BUFFER_BYTES] }
    }

    /// Runs until the member has left or failed. The others, which listen and look seeds up, end with it. Dropping the future ends
    /// all at once.
    pub(super) async fn run(mut self, mut others: JoinSet<()>) {
        self.machine.net.sockets.writable().await;
        let mut alarm = pin!(sleep_until(self.machine.wake_at(Machine::far_off())));
        loop {
            self.machine.conclude(&mut self.observer);
            if self.machine.is_over() {
                break;
            }
            // However much comes, what is due gets its turn.
            if alarm.deadline() <= Instant::now() {
                self.machine.tick(&mut self.observer);
                alarm.as_mut().reset(Machine::far_off());
                continue;
            }
            let wake_at = self.machine.wake_at(alarm.deadline());
            if alarm.deadline() != wake_at {
                alarm.as_mut().reset(wake_at);
            }
            tokio::select! {
                job = self.jobs.recv() => match job {
                    Some(job) => job(&mut Access { observer: &mut self.observer, machine: &mut self.machine }),
                    // Nobody wants it any more.
                    None => return,
                },
                Some(incoming) = self.incoming.recv() => self.machine.take(&mut self.observer, incoming),
                () = self.machine.net.sockets.readable() => self.receive(),
                () = &mut alarm => (),
            }
        }
        others.shutdown().await;
        if self.machine.phase() == Phase::Left {
            // Who is not reached by then will find out.
            let _ = timeout(FLUSH, self.machine.net.lanes.finish()).await;
        }
    }

    /// Takes some of the datagrams that came.
    fn receive(&mut self) {
        let Self { observer, machine, buffer, .. } = self;
        for socket in 0..machine.net.sockets.len() {
            for _ in 0..DATAGRAMS_PER_TURN {
                match machine.net.sockets.receive(socket, buffer, &machine.net.shared.counts) {
                    Some(Ok((len, from))) => {
                        if let Some(bytes) = buffer.get_mut(..len) {
                            machine.feed_udp(observer, from, bytes);
                        }
                    }
                    Some(Err(_)) => (),
                    None => break,
                }
            }
        }
    }
}
