use super::*;
use crate::conformance::Counters;
use crate::value::Value as _;

/// A server in memory. Clones are the same.
#[derive(Clone, Default)]
struct Table {
    rows: Arc<watch::Sender<Rows>>,
}

#[derive(Default)]
struct Rows {
    index: u64,
    rows: BTreeMap<String, (u64, Bytes)>,
}

impl Rows {
    fn page(&self, scope: &Scope) -> Page {
        let is_meant = |name: &str| match scope {
            Scope::Key(key) => name == key,
            Scope::Below(prefix) => name.starts_with(prefix.as_str()),
        };
        let rows = self.rows.iter().filter(|(name, _)| is_meant(name));
        let item = |(name, (index, value)): (&String, &(u64, Bytes))| Item {
            key: name.clone(),
            value: value.clone(),
            index: *index,
        };
        Page { items: rows.map(item).collect(), index: self.index }
    }

    fn allow(&self, batch: &Batch) -> bool {
        let at = |name: &str| self.rows.get(name).map(|(index, _)| *index);
        let holds = |guard: &Guard| match guard {
            Guard::Absent(name) => at(name).is_none(),
            Guard::Present(name) => at(name).is_some(),
            Guard::At(name, index) => at(name) == Some(*index),
        };
        let is_unchanged = |(prefix, index): &(String, u64)| {
            let mut below = self.rows.iter().filter(|(name, _)| name.starts_with(prefix.as_str()));
            below.all(|(_, (at, _))| at <= index)
        };
        batch.guards.iter().all(holds) && batch.unchanged.as_ref().is_none_or(is_unchanged)
    }

    fn carry_out(&mut self, batch: &Batch) -> Committed {
        if !self.allow(batch) {
            return Committed::Lost;
        }
        self.index += 1;
        if let Some(prefix) = &batch.delete_below {
            self.rows.retain(|name, _| !name.starts_with(prefix.as_str()));
        }
        for name in &batch.deletes {
            self.rows.remove(name);
        }
        for (name, value) in &batch.puts {
            self.rows.insert(name.clone(), (self.index, value.clone()));
        }
        Committed::At(self.index)
    }
}

#[async_trait]
impl Flat for Table {
    fn backend(&self) -> &'static str {
        "table"
    }

    fn max_batch(&self) -> usize {
        16
    }

    fn max_batch_bytes(&self) -> usize {
        1 << 20
    }

    async fn read(&self, scope: &Scope) -> Result<Page, Error> {
        Ok(self.rows.borrow().page(scope))
    }

    async fn names(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let rows = self.rows.borrow();
        Ok(rows.rows.keys().filter(|name| name.starts_with(prefix)).cloned().collect())
    }

    async fn commit(&self, batch: &Batch) -> Result<Committed, Error> {
        let mut committed = Committed::Lost;
        self.rows.send_if_modified(|rows| {
            committed = rows.carry_out(batch);
            committed != Committed::Lost
        });
        Ok(committed)
    }

    async fn follow(&self, scope: &Scope, _pulse: &Pulse, news: &(dyn Fn(News) + Send + Sync)) {
        let mut rows = self.rows.subscribe();
        loop {
            let page = rows.borrow_and_update().page(scope);
            news(News::Page(page));
            // The sender is here.
            let _ = rows.changed().await;
        }
    }
}

fn layered(table: &Table, layout: Layout) -> Layered<Table> {
    Layered::new(table.clone(), layout, 1 << 20, &Meter::disabled())
}

mod single {
    use super::{Layout, Table};

    crate::conformance_tests!(super::layered(&Table::default(), Layout::Single));
}

mod per_instance {
    use super::{Layout, Table};

    crate::conformance_tests!(super::layered(&Table::default(), Layout::PerInstance));
}

fn ring() -> Key {
    Key::new("ring", Counters::codec())
}

fn set(id: &str, count: u64) -> Change {
    Change::upsert(id, Counters::encode_entry(&count))
}

async fn write(store: &Layered<Table>, change: Change, when: Precondition) -> Option<u64> {
    match store.apply(&ring(), change, when).await.unwrap() {
        Applied::Done(stored) => Some(stored.version),
        Applied::Conflict => None,
    }
}

#[tokio::test]
async fn what_others_write_is_in_the_way_of_nobody_who_names_something_else() {
    let table = Table::default();
    let (one, other) = (layered(&table, Layout::PerInstance), layered(&table, Layout::PerInstance));
    let first = write(&one, set("a", 1), Precondition::None).await;
    for count in 1..=3 {
        write(&other, set("b", count), Precondition::None).await.unwrap();
    }
    let when = Precondition::Entries(first);
    assert_eq!(
        write(&one, set("c", 1), when).await,
        None,
        "somebody came since, and it may have been this one"
    );
    let second = write(&one, set("a", 2), when).await;
    assert!(second > first, "{second:?}");
    write(&other, set("a", 9), Precondition::None).await.unwrap();
    assert_eq!(write(&one, set("a", 3), Precondition::Entries(second)).await, None);
    let read = one.get(&ring()).await.unwrap().unwrap();
    assert_eq!(read.entries["a"].bytes, Counters::encode_entry(&9));
    assert!(write(&one, set("a", 10), Precondition::Entries(Some(read.version))).await.is_some());
}

#[tokio::test]
async fn a_key_with_many_entries_goes_by_what_was_looked_at() {
    let table = Table::default();
    let (one, other) = (layered(&table, Layout::PerInstance), layered(&table, Layout::PerInstance));
    for number in 0..40 {
        write(&one, set(&format!("i{number}"), 1), Precondition::None).await.unwrap();
    }
    let read = one.get(&ring()).await.unwrap().unwrap();
    let newer = write(&other, set("i7", 2), Precondition::None).await.unwrap();
    assert!(!one.delete_at(&ring(), read.version).await.unwrap());
    assert_eq!(one.get(&ring()).await.unwrap().unwrap().entries.len(), 40);
    assert!(one.delete_at(&ring(), newer).await.unwrap());
    assert_eq!(one.get(&ring()).await.unwrap(), None);
    assert!(table.rows.borrow().rows.is_empty(), "nothing is left of it");
}

#[test]
fn writes_are_divided_by_number_and_by_size() {
    let write = |bytes: usize| (EntryId::default(), Some(Bytes::from(vec![0; bytes])));
    assert_eq!(first_batch(&[], 10, 100), 0);
    assert_eq!(first_batch(&[write(1000), write(1)], 10, 100), 1, "what is too large goes alone");
    assert_eq!(first_batch(&[write(50), write(50), write(1)], 10, 100), 2);
    assert_eq!(first_batch(&[write(1), write(1), write(1)], 2, 100), 2);
    assert_eq!(first_batch(&[(EntryId::default(), None), write(100)], 10, 100), 2);
}

#[test]
fn an_entry_does_not_keep_the_answer_that_it_came_in() {
    let answer = Bytes::from(vec![7; 1000]);
    let entries = replaced(&Entries::new(), BTreeMap::from([("a".into(), answer.slice(10..20))]));
    let kept = entries["a"].bytes.as_ptr();
    assert!(!answer.as_ptr_range().contains(&kept));
    // What did not change is not copied again.
    let again = replaced(&entries, BTreeMap::from([("a".into(), answer.slice(30..40))]));
    assert_eq!(again["a"].bytes.as_ptr(), kept);
}
