//! Saying when a passphrase is easy to find.

use zxcvbn::feedback::Warning;
use zxcvbn::{Score, zxcvbn};

/// What is to be said of a passphrase that is to protect a repository, if it is empty or weak: one sentence.
///
/// Whoever has the repository can try passphrases as long as they like; each takes 64 MiB and a part of a second.
pub fn warning(passphrase: &str) -> Option<String> {
    if passphrase.is_empty() {
        return Some(
            "the passphrase is empty: whoever can read the repository can read what is in it".to_owned(),
        );
    }
    let estimate = zxcvbn(passphrase, &["vykar"]);
    if estimate.score() >= Score::Three {
        return None;
    }
    let why = match estimate.feedback().and_then(|feedback| feedback.warning()) {
        Some(warning) => why(warning).to_owned(),
        None => format!("about 10^{:.0} tries find it", estimate.guesses_log10()),
    };
    Some(format!(
        "the passphrase is weak, since {why}: whoever can read the repository may find it by trying; several random \
         words are better"
    ))
}

fn why(warning: Warning) -> &'static str {
    match warning {
        Warning::ThisIsATop10Password | Warning::ThisIsATop100Password | Warning::ThisIsACommonPassword => {
            "it is a common one"
        }
        Warning::ThisIsSimilarToACommonlyUsedPassword => "it is almost a common one",
        Warning::StraightRowsOfKeysAreEasyToGuess | Warning::ShortKeyboardPatternsAreEasyToGuess => {
            "its keys lie beside each other"
        }
        Warning::RepeatsLikeAaaAreEasyToGuess | Warning::RepeatsLikeAbcAbcAreOnlySlightlyHarderToGuess => {
            "it repeats itself"
        }
        Warning::SequencesLikeAbcAreEasyToGuess => "it is a sequence",
        Warning::RecentYearsAreEasyToGuess | Warning::DatesAreOftenEasyToGuess => "dates are easy to guess",
        Warning::AWordByItselfIsEasyToGuess => "it is a single word",
        Warning::NamesAndSurnamesByThemselvesAreEasyToGuess
        | Warning::CommonNamesAndSurnamesAreEasyToGuess => "names are easy to guess",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_ones_are_named_in_one_sentence_and_strong_ones_are_not() {
        for (weak, why) in [
            ("", "is empty"),
            ("password", "since it is a common one"),
            ("aaaaaaaa", "since it repeats itself"),
            ("abcdefgh", "since it is "),
            ("qwertyuiop", "since it is a common one"),
            ("1999-12-31", "since dates"),
            ("x7Q", "tries find it"),
            ("vykar", "since "),
        ] {
            let said = warning(weak).unwrap_or_else(|| panic!("{weak:?} is weak"));
            assert!(said.contains(why), "{weak:?}: {said}");
            assert!(!said.contains('\n') && !said.contains(". ") && !said.ends_with('.'), "{said}");
            assert!(weak.len() < 6 || !said.contains(weak), "{said}");
        }
        for strong in [
            "leaden umbrella tea harbour",
            "kR8#vq2Lw9zTp",
            "d41d8cd98f00b204e9800998ecf8427e",
            "Straßenbahnfahrplanänderung im Mai",
            &"long and longer ".repeat(1000),
        ] {
            assert_eq!(warning(strong), None);
        }
    }
}
