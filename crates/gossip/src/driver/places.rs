//! [`Places`]: how many connections may come in, in all and from each address.
//!
//! A connection takes a place before anything of it is read. One that turns out to be for datagrams stays for as long as its
//! sender lives: it gives its place back and takes one of a kind of its own, so that streams always find room beside it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many lanes for datagrams there may be for each other connection: one from each member, where there are few streams.
pub(super) const LANES_PER_CONNECTION: usize = 4;
/// From each address so many may come in, however few there are in all.
const LEAST_PER_ADDRESS: usize = 8;
/// From each address no more may come in than this part of all.
const ADDRESS_PART: usize = 4;

/// How many connections may come in, and those that are there.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    /// Of `most`; loopback addresses have no such limit, because many members share one.
    per_address: usize,
    taken: Mutex<Taken>,
    /// The last turn that was given to a lane.
    turn: AtomicU64,
}

#[derive(Debug, Default)]
struct Taken {
    connections: usize,
    by_address: BTreeMap<IpAddr, usize>,
    lanes: BTreeMap<u64, Arc<Lane>>,
    /// The number of the last lane.
    last_lane: u64,
}

#[derive(Debug)]
struct Lane {
    from: IpAddr,
    /// When something last came: later turns are larger.
    turn: AtomicU64,
    ended: Notify,
}

impl Places {
    /// None is taken yet, and there are `most`, beside those for lanes.
    pub(super) fn new(most: usize) -> Self {
        let per_address = (most / ADDRESS_PART).max(LEAST_PER_ADDRESS);
        Self { most, per_address, taken: Mutex::default(), turn: AtomicU64::new(0) }
    }

    /// Takes a place for a connection from this address, if there is one for it.
    pub(super) fn take(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let mut taken = self.taken();
        let same = taken.by_address.get(&from).copied().unwrap_or(0);
        if taken.connections >= self.most || (!from.is_loopback() && same >= self.per_address) {
            return None;
        }
        taken.connections += 1;
        taken.by_address.insert(from, same + 1);
        Some(Place { places: Arc::clone(self), from })
    }

    /// Takes a place for a lane. If there is none left, the lane loses its place that nothing came on for the longest time: of
    /// those from the same address, if there are too many of these.
    fn take_lane(self: &Arc<Self>, from: IpAddr) -> LanePlace {
        let mut taken = self.taken();
        let is_same = |lane: &Lane| lane.from == from;
        let same = taken.lanes.values().filter(|lane| is_same(lane)).count();
        let last = if !from.is_loopback() && same >= self.per_address.saturating_mul(LANES_PER_CONNECTION) {
            taken.last_active(is_same)
        } else if taken.lanes.len() >= self.most.saturating_mul(LANES_PER_CONNECTION) {
            taken.last_active(|_| true)
        } else {
            None
        };
        if let Some(lane) = last.and_then(|number| taken.lanes.remove(&number)) {
            lane.ended.notify_one();
        }
        taken.last_lane += 1;
        let number = taken.last_lane;
        let lane = Arc::new(Lane { from, turn: AtomicU64::new(self.next_turn()), ended: Notify::new() });
        taken.lanes.insert(number, Arc::clone(&lane));
        LanePlace { places: Arc::clone(self), number, lane }
    }

    fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// The one of these lanes that nothing came on for the longest time.
    fn last_active(&self, is_meant: impl Fn(&Lane) -> bool) -> Option<u64> {
        let meant = self.lanes.iter().filter(|(_, lane)| is_meant(lane));
        meant.min_by_key(|(_, lane)| lane.turn.load(Ordering::Relaxed)).map(|(number, _)| *number)
    }
}

/// The place of one connection, for as long as this lives.
pub(super) struct Place {
    places: Arc<Places>,
    from: IpAddr,
}

impl Place {
    /// The connection is a lane for datagrams.
    pub(super) fn into_lane(self) -> LanePlace {
        self.places.take_lane(self.from)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.connections = taken.connections.saturating_sub(1);
        if let Some(same) = taken.by_address.get_mut(&self.from) {
            *same = same.saturating_sub(1);
            if *same == 0 {
                taken.by_address.remove(&self.from);
            }
        }
    }
}

/// The place of one lane for datagrams, for as long as this lives or until it is lost.
pub(super) struct LanePlace {
    places: Arc<Places>,
    number: u64,
    lane: Arc<Lane>,
}

impl LanePlace {
    /// Something came.
    pub(super) fn heard(&self) {
        self.lane.turn.store(self.places.next_turn(), Ordering::Relaxed);
    }

    /// Waits until another lane has this place.
    pub(super) async fn lost(&self) {
        self.lane.ended.notified().await;
    }
}

impl Drop for LanePlace {
    fn drop(&mut self) {
        self.places.taken().lanes.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ip(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    fn places(most: usize) -> Arc<Places> {
        Arc::new(Places::new(most))
    }

    async fn is_lost(lane: &LanePlace) -> bool {
        tokio::time::timeout(std::time::Duration::ZERO, lane.lost()).await.is_ok()
    }

    #[test]
    fn one_address_leaves_room_for_others() {
        let places = places(100);
        let mut held: Vec<Place> = (0..25).map(|_| places.take(ip(1)).unwrap()).collect();
        assert!(places.take(ip(1)).is_none());
        held.extend((0..25).map(|_| places.take(ip(2)).unwrap()));
        held.pop();
        assert!(places.take(ip(2)).is_some());
        // Whoever is on this host is not told apart by it.
        held.extend((0..51).map(|_| places.take(Ipv4Addr::LOCALHOST.into()).unwrap()));
        assert!(places.take(ip(3)).is_none());
        held.clear();
        assert!(places.taken().by_address.is_empty());
        assert_eq!(places.taken().connections, 0);
    }

    #[test]
    fn where_there_are_few_places_one_address_may_have_them_all() {
        let places = places(8);
        let held: Vec<Place> = (0..8).map(|_| places.take(ip(1)).unwrap()).collect();
        assert!(places.take(ip(2)).is_none());
        drop(held);
        assert!(places.take(ip(2)).is_some());
    }

    #[tokio::test]
    async fn lanes_take_no_place_of_streams_and_the_least_active_one_ends() {
        let places = places(1);
        let lane = |number| places.take(ip(number)).unwrap().into_lane();
        let mut lanes: Vec<LanePlace> = (0..4).map(lane).collect();
        lanes[0].heard();
        let stream = places.take(ip(9)).unwrap();
        assert!(!is_lost(&lanes[1]).await);
        drop(stream);
        lanes.push(lane(4));
        assert!(is_lost(&lanes[1]).await);
        for place in [0, 2, 3, 4] {
            assert!(!is_lost(&lanes[place]).await, "{place}");
        }
        lanes.clear();
        assert!(places.taken().lanes.is_empty());
    }

    #[tokio::test]
    async fn lanes_of_one_address_end_those_of_the_same() {
        let places = places(16);
        let lane = |number| places.take(ip(number)).unwrap().into_lane();
        let other = lane(1);
        let mut lanes: Vec<LanePlace> = (0..32).map(|_| lane(2)).collect();
        assert!(!is_lost(&lanes[0]).await);
        lanes.push(lane(2));
        assert!(is_lost(&lanes[0]).await);
        assert!(!is_lost(&other).await);
    }
}
