//! Session ids that tell which machine they come from.
//!
//! A session's marker names its host and process, and machines may share a host name. So an id is made of six random
//! bytes and three tags of these, keyed with the repository's key: one says that an id is of this form, one that it is of
//! this boot, and one that it is of this machine. Without the key they are random bytes, as other programs' ids are.

use crate::crypto::random;
use crate::error::Result;
use crate::id::SessionId;
use crate::platform::process::{boot_id, machine_id};
use crate::repository::Keys;

/// Where a session was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionOrigin {
    /// On this machine, and it was not started again since.
    ThisBoot,
    /// On this machine, before it was started the last time.
    EarlierBoot,
    /// On another machine.
    Elsewhere,
    /// The id does not tell: another program's.
    Unknown,
}

/// What makes a machine that machine, as far as it is known.
struct Machine {
    boot: Option<String>,
    machine: Option<String>,
}

impl Machine {
    fn this() -> Self {
        Machine { boot: boot_id(), machine: machine_id() }
    }

    fn make(&self, keys: &Keys, random: [u8; 6]) -> Result<SessionId> {
        let mut id = [0; 16];
        id[..6].copy_from_slice(&random);
        id[6..9].copy_from_slice(&tag(keys, b"vykarsid", &random, "")?);
        for (at, purpose, part) in [(9, b"vykarbid", &self.boot), (12, b"vykarmid", &self.machine)] {
            // A machine that does not know is like none.
            let tag = match part {
                Some(part) => tag(keys, purpose, &random, part)?,
                None => [0; 3],
            };
            id[at..at + 3].copy_from_slice(&tag);
        }
        id[15] = crate::crypto::random::<1>()?[0];
        Ok(SessionId(id))
    }

    fn origin(&self, keys: &Keys, id: &SessionId) -> SessionOrigin {
        let random = &id.0[..6];
        let is = |at: usize, purpose, part: &str| {
            tag(keys, purpose, random, part).is_ok_and(|tag| tag == id.0[at..at + 3])
        };
        let is_known =
            |at, purpose, part: &Option<String>| part.as_ref().is_some_and(|part| is(at, purpose, part));
        if !is(6, b"vykarsid", "") {
            SessionOrigin::Unknown
        } else if is_known(9, b"vykarbid", &self.boot) {
            SessionOrigin::ThisBoot
        } else if is_known(12, b"vykarmid", &self.machine) {
            SessionOrigin::EarlierBoot
        } else {
            SessionOrigin::Elsewhere
        }
    }
}

fn tag(keys: &Keys, purpose: &[u8; 8], random: &[u8], part: &str) -> Result<[u8; 3]> {
    let [a, b, c, ..] = keys.hasher().local(purpose, &[random, part.as_bytes()])?;
    Ok([a, b, c])
}

/// A new id, of this machine.
pub(in crate::repository) fn new(keys: &Keys) -> Result<SessionId> {
    Machine::this().make(keys, random()?)
}

/// Where a session was begun.
pub(in crate::repository) fn origin(keys: &Keys, id: &SessionId) -> SessionOrigin {
    Machine::this().origin(keys, id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestRepository;

    #[test]
    fn an_id_tells_machines_and_boots_apart_to_those_with_the_key() {
        let (test, other) = (TestRepository::new(), TestRepository::new());
        let keys = test.repository.keys();
        let machine =
            |boot: &str, machine: &str| Machine { boot: Some(boot.into()), machine: Some(machine.into()) };
        let here = machine("b1", "m");
        let id = here.make(keys, random().unwrap()).unwrap();
        assert_eq!(here.origin(keys, &id), SessionOrigin::ThisBoot);
        assert_eq!(machine("b2", "m").origin(keys, &id), SessionOrigin::EarlierBoot);
        assert_eq!(machine("b2", "n").origin(keys, &id), SessionOrigin::Elsewhere);
        assert_eq!(Machine { boot: None, machine: None }.origin(keys, &id), SessionOrigin::Elsewhere);
        assert_eq!(here.origin(other.repository.keys(), &id), SessionOrigin::Unknown);
        assert_eq!(here.origin(keys, &SessionId([7; 16])), SessionOrigin::Unknown);
        assert_ne!(id, here.make(keys, random().unwrap()).unwrap());
    }
}
