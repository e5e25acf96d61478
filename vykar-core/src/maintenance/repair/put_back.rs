//! Putting objects where they belong that lie in another place, or in each other's.

use std::collections::{HashMap, HashSet};

use crate::error::Result;
use crate::id::PackId;
use crate::maintenance::repair::quarantine::{copy, note_key, set_aside};
use crate::repository::WriteGuard;

/// An object that belongs elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Move {
    /// The hash of it.
    pub content: PackId,
    /// Its key.
    pub from: String,
    /// The key that it should have.
    pub to: String,
}

/// Copies each object to where it belongs, over what is there. Gives the keys of copies that were needed on the way,
/// which nobody needs any more.
///
/// What is written over is either in its own place by then, or was set aside: by the caller, who has to do that with
/// all that is not moved itself, or here, where objects are in each other's places. So everything is somewhere at every
/// moment.
pub(super) fn put_back(guard: &WriteGuard<'_>, moves: Vec<Move>) -> Result<Vec<String>> {
    let repository = guard.repository();
    let mut sources: HashSet<String> = moves.iter().map(|wanted| wanted.from.clone()).collect();
    let (mut ready, mut waiting): (Vec<Move>, HashMap<String, Move>) = (Vec::new(), HashMap::new());
    for wanted in moves {
        match sources.contains(&wanted.to) {
            // Behind the one that is in its place.
            true => drop(waiting.insert(wanted.to.clone(), wanted)),
            false => ready.push(wanted),
        }
    }
    let mut copies = Vec::new();
    loop {
        while let Some(next) = ready.pop() {
            guard.check()?;
            copy(&**repository.backend(), &next.from, &next.to, Some(next.content))?;
            sources.remove(&next.from);
            // What was there is in its own place now.
            ready.extend(waiting.remove(&next.from));
        }
        // Each is in the place of another: one of them has to wait somewhere else.
        let Some(place) = waiting.keys().min().cloned() else { return Ok(copies) };
        let Some(blocked) = waiting.remove(&place) else { return Ok(copies) };
        guard.check()?;
        let in_the_way = waiting.values_mut().find(|wanted| wanted.from == place);
        if let Some(in_the_way) = in_the_way
            && let Some(key) =
                set_aside(repository, &place, "in the place of another", Some(in_the_way.content))?
        {
            in_the_way.from = key.clone();
            copies.extend([note_key(&key), key]);
        }
        ready.push(blocked);
    }
}
