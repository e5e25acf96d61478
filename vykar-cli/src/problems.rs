//! What went wrong with single files while a command worked: how many, and the first, for hooks.

use std::sync::{Mutex, PoisonError};

/// Counts problems, each in the scopes that are open.
#[derive(Debug, Default)]
pub struct Problems(Mutex<Vec<Scope>>);

/// Problems since something began.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Scope {
    /// How many there were.
    pub count: u64,
    /// The first, in words.
    pub first: Option<String>,
}

impl Problems {
    /// Takes note of one, where somebody wants to know.
    pub fn note(&self, what: &str) {
        if let Some(scope) = self.scopes().last_mut() {
            scope.add(1, Some(what));
        }
    }

    /// Runs something; also returns what went wrong meanwhile.
    pub fn during<T>(&self, run: impl FnOnce() -> T) -> (T, Scope) {
        self.scopes().push(Scope::default());
        let result = run();
        let mut scopes = self.scopes();
        let scope = scopes.pop().unwrap_or_default();
        if let Some(outer) = scopes.last_mut() {
            outer.add(scope.count, scope.first.as_deref());
        }
        (result, scope)
    }

    fn scopes(&self) -> std::sync::MutexGuard<'_, Vec<Scope>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scope {
    fn add(&mut self, count: u64, first: Option<&str>) {
        self.count = self.count.saturating_add(count);
        if self.first.is_none() {
            self.first = first.map(str::to_owned);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_knows_what_happened_inside_it() {
        let problems = Problems::default();
        problems.note("nobody asks");
        let (inner, outer) = problems.during(|| {
            let ((), inner) = problems.during(|| ["a", "b"].into_iter().for_each(|what| problems.note(what)));
            problems.note("c");
            inner
        });
        assert_eq!((inner.count, inner.first.as_deref()), (2, Some("a")));
        assert_eq!((outer.count, outer.first.as_deref()), (3, Some("a")));
    }
}
