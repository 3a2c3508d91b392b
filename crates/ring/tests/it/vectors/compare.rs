use ringkit_ring::find_difference;

use crate::support::{list, ring, text, vectors};

#[test]
fn rings_compare_as_in_cortex() {
    let file = vectors("compare");
    assert_eq!(list(&file, "ring_compare").len(), 17);
    for case in list(&file, "ring_compare") {
        let (a, b) = (ring(list(case, "a")), ring(list(case, "b")));
        assert_eq!(format!("{:?}", a.compare(&b)), text(case, "result"), "{}", text(case, "name"));
    }
}

#[test]
fn differences_are_found_as_in_cortex() {
    let file = vectors("compare");
    assert_eq!(list(&file, "find_difference").len(), 11);
    for case in list(&file, "find_difference") {
        let name = text(case, "name");
        let (current, mut new) = (ring(list(case, "current")), ring(list(case, "new")));
        let difference = find_difference(Some(&current), Some(&mut new));
        assert_eq!(difference.to_update, ring(list(case, "to_update")), "{name}: to update");
        let deleted: Vec<_> = list(case, "to_delete").iter().map(|id| id.as_str().unwrap()).collect();
        assert_eq!(difference.to_delete, deleted, "{name}: to delete");
        assert_eq!(new, ring(list(case, "new_after_call")), "{name}: new after the call");
    }
}
