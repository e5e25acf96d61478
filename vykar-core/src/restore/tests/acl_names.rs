use super::*;
use crate::format::acl::{ACCESS, Acl};
use crate::format::item::Xattrs;
use crate::format::{Item, ItemType};
use crate::testing::TestRepository;

/// An ACL that lets one user read.
fn allows(uid: u32) -> Vec<u8> {
    let mut value = vec![2, 0, 0, 0];
    for (tag, permissions, id) in [(1u16, 6u16, u32::MAX), (2, 4, uid), (4, 0, u32::MAX), (16, 4, u32::MAX)] {
        value.extend([tag.to_le_bytes(), permissions.to_le_bytes()].concat());
        value.extend(id.to_le_bytes());
    }
    value.extend([32, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    assert!(Acl::parse(&value).is_some());
    value
}

/// The name for a number is that of an owner anywhere in the snapshot, also behind the ACL or among what is not wanted.
#[test]
fn rights_follow_the_name_that_any_item_gives_for_a_number() {
    let mut t = TestRepository::new();
    let with = |uid| -> Option<Xattrs<'static>> { Some(vec![(ACCESS.into(), allows(uid).into())]) };
    let shared = Item { mode: 0o100_640, xattrs: with(5001), ..t.file("a/shared", b"1") };
    let unnamed = Item { xattrs: with(5002), path: "a/unnamed".into(), ..shared.clone() };
    let owned = Item { uid: 5001, user: Some("root".into()), ..Item::new("z", ItemType::RegularFile) };
    let snapshot = t.snapshot("s", &[shared, unnamed, owned], None);
    for (numeric_ids, uid) in [(false, 0), (true, 5001)] {
        let options = RestoreOptions { numeric_ids, ..only(&["a"]) };
        let restored = run_in(tempfile::tempdir().unwrap(), &t.repository, &snapshot, &options);
        let acl = |path: &str| xattr(&restored.dest().join(path), ACCESS);
        let found = acl("a/shared");
        needs!(access_lists: found.is_some());
        assert_eq!((found.unwrap(), acl("a/unnamed").unwrap()), (allows(uid), allows(5002)), "{numeric_ids}");
    }
}
