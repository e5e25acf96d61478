//! Lists in messages.

use std::fmt::Display;

/// The first `most` of a list and how many more there are: `a, b and 3 more`. Where the `separator` is more than a
/// comma, it stands before the `and` too.
pub fn first_few<I>(list: I, most: usize, separator: &str) -> String
where
    I: IntoIterator<IntoIter: ExactSizeIterator, Item: Display>,
{
    let list = list.into_iter();
    let more = list.len().saturating_sub(most);
    let named: Vec<String> = list.take(most).map(|each| each.to_string()).collect();
    let named = named.join(separator);
    match more {
        0 => named,
        more => format!("{named}{} and {more} more", separator.trim_end_matches([',', ' '])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_of_a_list_is_counted() {
        assert_eq!(first_few([""; 0], 2, ", "), "");
        assert_eq!(first_few(["a", "b"], 2, ", "), "a, b");
        assert_eq!(first_few(["a", "b", "c", "d"], 2, ", "), "a, b and 2 more");
        assert_eq!(first_few([1, 2, 3], 2, "; "), "1; 2; and 1 more");
    }
}
