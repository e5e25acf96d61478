//! The wrapped keys and the parameters of a repository as text that can be printed, and typed back.
//!
//! ```text
//! 1: XXXXX XXXXX XXXXX XXXXX XXXXX XXXXX XXXXX XXXXX CCCC
//! ```
//!
//! A line has its number, up to 25 bytes in base 32 (Crockford's digits: upper and lower case are one, as are O and 0, and
//! I, L and 1), and the first 20 bits of the BLAKE2b-256 of its number (u32) and its bytes. Spaces and dashes mean
//! nothing, nor do lines that do not begin with a number. The bytes of all lines together are
//!
//! ```text
//! version u8 = 1 | length of config u16 | length of key u16 | config | key | the first 8 bytes of their BLAKE2b-256
//! ```
//!
//! where config and key are the objects of the format with byte strings as `bin`, which is shorter, and the digest is of
//! everything before it.

use std::collections::BTreeMap;
use std::fmt;

use data_encoding::Encoding;
use data_encoding_macro::new_encoding;
use serde_bytes::Bytes;

use super::{EncryptedKey, RepoConfig, wire};
use crate::crypto::pack_id;
use crate::error::{FormatError, Result, VykarError};
use crate::text::first_few;

const VERSION: u8 = 1;
/// Five bits a digit, the last one filled with zeros.
const BASE32: Encoding = new_encoding! { symbols: "0123456789ABCDEFGHJKMNPQRSTVWXYZ", };
/// Bytes in a line.
const LINE: usize = 25;
/// Digits of a line's checksum.
const CHECK: usize = 4;
/// Digits in a group.
const GROUP: usize = 5;
/// More lines than any export has.
const MAX_LINES: u32 = 999;
/// Bytes of the digest at the end.
const DIGEST: usize = 8;
/// Bytes before config.
const HEAD: usize = 5;
/// Problems that are named; more are counted.
const NAMED: usize = 10;

/// What makes a repository's objects readable together with its passphrase: the key as it lies in the repository, still
/// wrapped by that passphrase, and the parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyExport {
    /// What `config` holds.
    pub config: RepoConfig,
    /// What `keys/repokey` holds.
    pub key: EncryptedKey,
}

/// What is wrong with a text, line by line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyTextError {
    /// One for each line that is wrong.
    pub problems: Vec<String>,
}

impl fmt::Display for KeyTextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&first_few(&self.problems, NAMED, "; "))
    }
}

impl std::error::Error for KeyTextError {}

impl From<FormatError> for KeyTextError {
    fn from(error: FormatError) -> Self {
        one(error.to_string())
    }
}

fn one(problem: impl Into<String>) -> KeyTextError {
    KeyTextError { problems: vec![problem.into()] }
}

impl KeyExport {
    /// The text, with what it is on top.
    pub fn to_text(&self) -> Result<String> {
        let payload = self.payload()?;
        let count = payload.chunks(LINE).count();
        let mut text = format!(
            "vykar key export\nRepository {}\nEncryption {}, {count} lines\n\n{EXPLANATION}\n",
            self.config.id, self.config.encryption
        );
        for (number, bytes) in (1u32..=MAX_LINES).zip(payload.chunks(LINE)) {
            text.push_str(&line(number, bytes));
        }
        text.push_str("\nEnd of the key\n");
        match KeyExport::parse(&text) {
            Ok(back) if back == *self => Ok(text),
            _ => Err(failed("it does not read back")),
        }
    }

    /// The bytes that the lines hold.
    fn payload(&self) -> Result<Vec<u8>> {
        let (c, k) = (&self.config, &self.key);
        let sizes = (c.min_pack_size, c.max_pack_size);
        let id = Bytes::new(c.id.as_bytes());
        let config =
            wire::encode("config", &(c.version, id, c.chunker, c.encryption, &c.created, sizes.0, sizes.1))?;
        let kdf = &k.kdf;
        let derivation =
            (&kdf.algorithm, kdf.time_cost, kdf.memory_cost, kdf.parallelism, Bytes::new(&kdf.salt));
        let key = wire::encode("repokey", &(derivation, Bytes::new(&k.nonce), Bytes::new(&k.wrapped)))?;
        let mut out = vec![VERSION];
        for part in [&config, &key] {
            let len = u16::try_from(part.len()).map_err(|_| failed("it is too long"))?;
            out.extend(len.to_le_bytes());
        }
        out.extend(config);
        out.extend(key);
        let digest = pack_id(&out);
        out.extend(&digest.as_bytes()[..DIGEST]);
        Ok(out)
    }

    /// Reads such a text, also as a person has typed it.
    ///
    /// # Errors
    /// Every line that is wrong or missing.
    pub fn parse(text: &str) -> Result<Self, KeyTextError> {
        let payload = assemble(text)?;
        let (body, digest) =
            payload.split_at_checked(payload.len().saturating_sub(DIGEST)).unwrap_or_default();
        if pack_id(body).as_bytes()[..DIGEST] != *digest {
            return Err(one(
                "every line is right by itself, and together they are not: are all of one export?",
            ));
        }
        let (config_len, _) = lengths(body).ok_or_else(|| one("too short"))?;
        let (config, key) = body
            .get(HEAD..)
            .and_then(|both| both.split_at_checked(config_len))
            .ok_or_else(|| one("too short"))?;
        Ok(KeyExport { config: RepoConfig::decode(config)?, key: EncryptedKey::decode(key)? })
    }
}

const EXPLANATION: &str = "\
This is the key of that repository, still protected by the passphrase that it
had when this was made, and the repository's parameters. With both, everything
in the repository can be read, and with nothing less. `vykar key import` takes
this where keys/repokey or config is lost.

To type it back: the numbered lines are enough, in a file of their own. Upper
and lower case, spaces and dashes do not matter; O is 0, and I and L are 1. The
last four characters of a line check it, so that a mistake is named by its line.
";

fn failed(reason: &str) -> VykarError {
    VykarError::Encode { what: "a key export", reason: reason.to_owned() }
}

/// Lengths of config and key.
fn lengths(payload: &[u8]) -> Option<(usize, usize)> {
    let part = |at: usize| Some(usize::from(u16::from_le_bytes(*payload.get(at..)?.first_chunk()?)));
    Some((part(1)?, part(3)?))
}

/// The digits of a line's checksum.
fn check_of(number: u32, bytes: &[u8]) -> String {
    let hash = pack_id(&[&number.to_le_bytes()[..], bytes].concat());
    let mut digits = BASE32.encode(&hash.as_bytes()[..3]);
    digits.truncate(CHECK);
    digits
}

fn line(number: u32, bytes: &[u8]) -> String {
    let mut out = format!("{number:>3}:");
    let check = check_of(number, bytes);
    for group in BASE32.encode(bytes).as_bytes().chunks(GROUP).chain([check.as_bytes()]) {
        out.push(' ');
        out.extend(group.iter().map(|digit| char::from(*digit)));
    }
    out.push('\n');
    out
}

/// The digit that a person meant.
fn digit(typed: char) -> Option<char> {
    match typed.to_ascii_uppercase() {
        'O' => Some('0'),
        'I' | 'L' => Some('1'),
        'U' => None,
        c => c.is_ascii_alphanumeric().then_some(c),
    }
}

/// A line's number and what is behind it; `None` for a line that is none of the export's.
fn numbered(line: &str) -> Option<(u32, &str)> {
    let line = line.trim_start();
    let digits = line.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = line.split_at(digits);
    let rest = rest
        .strip_prefix([':', '.', ')'])
        .or_else(|| rest.starts_with(char::is_whitespace).then_some(rest))?;
    if rest.trim().is_empty() || number.len() > 3 {
        return None;
    }
    number.parse().ok().filter(|number| (1..=MAX_LINES).contains(number)).map(|number| (number, rest))
}

/// What a line holds.
fn read_line(number: u32, text: &str) -> Result<Vec<u8>, String> {
    let typed = text.chars().filter(|c| !c.is_whitespace() && *c != '-');
    let no_digit = |c: char| format!("line {number}: {} is not one of its characters", c.escape_debug());
    let digits = typed.map(|c| digit(c).ok_or_else(|| no_digit(c))).collect::<Result<String, String>>()?;
    let most = BASE32.encode_len(LINE) + CHECK;
    if digits.len() > most {
        return Err(format!("line {number}: {} characters, and no line has more than {most}", digits.len()));
    }
    let wrong = || format!("line {number}: mistyped: it does not fit its last four characters");
    let (data, check) = digits.split_at_checked(digits.len().saturating_sub(CHECK)).ok_or_else(wrong)?;
    let bytes = BASE32.decode(data.as_bytes()).map_err(|_| wrong())?;
    match check_of(number, &bytes) == check && !bytes.is_empty() {
        true => Ok(bytes),
        false => Err(wrong()),
    }
}

/// The bytes of all lines, in their order.
fn assemble(text: &str) -> Result<Vec<u8>, KeyTextError> {
    let mut lines: BTreeMap<u32, Option<Vec<u8>>> = BTreeMap::new();
    let mut problems = Vec::new();
    for (number, rest) in text.lines().filter_map(numbered) {
        match (read_line(number, rest), lines.get(&number)) {
            (Ok(bytes), Some(Some(other))) if bytes != *other => {
                problems.push(format!("line {number}: there twice, and not the same"));
            }
            (Ok(bytes), _) => drop(lines.insert(number, Some(bytes))),
            (Err(problem), _) => {
                problems.push(problem);
                lines.entry(number).or_insert(None);
            }
        }
    }
    let Some((&last, _)) = lines.last_key_value() else {
        return Err(one("no numbered lines of a key export in it"));
    };
    // The first line says how many there are.
    let first = lines.get(&1).and_then(|line| line.as_deref()).unwrap_or_default();
    let expected = match (first.first(), lengths(first)) {
        (Some(&VERSION), Some((config, key))) => HEAD + config + key + DIGEST,
        (Some(version), _) if *version != VERSION => {
            return Err(one(format!("made by a newer version of the program (version {version})")));
        }
        _ => last as usize * LINE,
    };
    let count = u32::try_from(expected.div_ceil(LINE)).unwrap_or(MAX_LINES).min(MAX_LINES);
    for number in (1..=count).filter(|number| !lines.contains_key(number)) {
        problems.push(format!("line {number}: missing"));
    }
    for (number, line) in &lines {
        let len = match number.cmp(&count) {
            std::cmp::Ordering::Less => LINE,
            std::cmp::Ordering::Equal => expected - (count as usize - 1) * LINE,
            std::cmp::Ordering::Greater => 0,
        };
        if line.as_ref().is_some_and(|line| line.len() != len) && !first.is_empty() {
            problems.push(format!("line {number}: of another export"));
        }
    }
    match problems.is_empty() {
        true => Ok(lines.into_values().flatten().flatten().collect()),
        false => Err(KeyTextError { problems }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{ChunkerParams, Encryption, KdfParams};
    use crate::id::RepositoryId;
    use crate::testing::unhex;

    fn sample() -> KeyExport {
        let config = RepoConfig {
            version: 2,
            id: RepositoryId(*pack_id(b"id").as_bytes()),
            chunker: ChunkerParams::FILES,
            encryption: Encryption::Aes256Gcm,
            created: "2026-01-02T03:04:05.123456789Z".into(),
            min_pack_size: RepoConfig::DEFAULT_MIN_PACK,
            max_pack_size: RepoConfig::DEFAULT_MAX_PACK,
        };
        let kdf = KdfParams {
            algorithm: "argon2id".into(),
            time_cost: 3,
            memory_cost: 65_536,
            parallelism: 4,
            salt: pack_id(b"salt").as_bytes().to_vec(),
        };
        let wrapped =
            [pack_id(b"a"), pack_id(b"b"), pack_id(b"c")].iter().flat_map(|id| *id.as_bytes()).collect();
        KeyExport { config, key: EncryptedKey { kdf, nonce: [0xfe; 12], wrapped } }
    }

    fn text() -> String {
        sample().to_text().unwrap()
    }

    /// What is said when one line is another one.
    fn said(change: impl Fn(u32, &str) -> String) -> String {
        let changed: Vec<String> = text()
            .lines()
            .map(|line| numbered(line).map_or(line.to_owned(), |(number, _)| change(number, line)))
            .collect();
        KeyExport::parse(&changed.join("\n")).unwrap_err().to_string()
    }

    #[test]
    fn it_reads_back_and_stays_as_it_is() {
        let text = text();
        assert_eq!(KeyExport::parse(&text).unwrap(), sample());
        assert!(text.contains(&format!("Repository {}\n", sample().config.id)), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        // What was printed once must be read for ever.
        let first = text.lines().find(|line| line.starts_with("  1:")).unwrap();
        assert_eq!(first, FIRST_LINE, "{text}");
        let numbered: String =
            text.lines().filter(|line| numbered(line).is_some()).map(|line| format!("{line}\n")).collect();
        assert_eq!(pack_id(numbered.as_bytes()).short(), WHOLE, "{text}");
    }

    const FIRST_LINE: &str = "  1: 05KG1 900JW 1C886 RYC63 GD7Q6 NY2YE 3JC75 NGRCC VEP0";
    /// Of all numbered lines.
    const WHOLE: &str = "00baaf85a5225b95";

    #[test]
    fn every_digit_has_its_five_bits() {
        let bytes = unhex("00443214c74254b635cf84653a56d7c675be77df");
        assert_eq!(BASE32.encode(&bytes), "0123456789ABCDEFGHJKMNPQRSTVWXYZ");
        let typed =
            "o123456789abcdefghjkmnpqrstvwxyz".chars().map(digit).collect::<Option<String>>().unwrap();
        assert_eq!(BASE32.decode(typed.as_bytes()), Ok(bytes));
        assert_eq!("OoIiLlUu-ä".chars().filter_map(digit).collect::<String>(), "001111");
        // What a line cannot end with: bits that no byte has, or too few for one.
        assert!(BASE32.decode(b"01").is_err() && BASE32.decode(b"0").is_err());
        assert_eq!(BASE32.encode(b"\xff"), "ZW");
    }

    #[test]
    fn how_it_is_typed_does_not_matter() {
        let numbered_only: String =
            text().lines().filter(|line| numbered(line).is_some()).map(|line| format!("{line}\n")).collect();
        let shuffled: Vec<&str> = numbered_only.lines().rev().chain(numbered_only.lines().take(2)).collect();
        for typed in [
            text().to_lowercase(),
            numbered_only.clone(),
            numbered_only.replace(' ', "").to_lowercase(),
            numbered_only.replace(": ", " ").replace('\n', "   \r\n\n\n"),
            numbered_only
                .lines()
                .map(|line| line.trim_start().replace(": ", ") ").replace(' ', "  -\t") + "\n")
                .collect(),
            numbered_only.lines().map(|line| line.replacen(':', "", 1) + "\n").collect(),
            shuffled.join("\n"),
            format!("My key\n\n{numbered_only}\n\n12\nprinted in 2026"),
        ] {
            assert_eq!(KeyExport::parse(&typed).as_ref(), Ok(&sample()), "{typed}");
        }
        // The digits that look alike are one.
        let alike = |line: &str| {
            let (number, digits) = line.split_once(':').unwrap();
            format!("{number}:{}", digits.replace('0', "o").replace('1', "l"))
        };
        let typed: Vec<String> = numbered_only.lines().map(alike).collect();
        assert_eq!(KeyExport::parse(&typed.join("\n")).unwrap(), sample());
    }

    #[test]
    fn a_mistake_is_named_by_its_line() {
        let end = text().lines().filter_map(numbered).map(|(number, _)| number).max().unwrap();
        for wanted in [1, 4, end] {
            let mistyped = |change: &dyn Fn(&str) -> String| {
                said(|number, line| if number == wanted { change(line) } else { line.to_owned() })
            };
            let expected = format!("line {wanted}: mistyped: it does not fit its last four characters");
            let at = 6;
            let another = if text().lines().find(|l| l.starts_with(&format!("{wanted:>3}:"))).unwrap()[at..]
                .starts_with('7')
            {
                "8"
            } else {
                "7"
            };
            assert_eq!(mistyped(&|line| format!("{}{another}{}", &line[..at], &line[at + 1..])), expected);
            // Two that changed places, one that is left out.
            let swapped = mistyped(&|line| {
                let mut chars: Vec<char> = line.chars().collect();
                let at = (5..9).find(|at| chars[*at] != chars[at + 1]).unwrap();
                chars.swap(at, at + 1);
                chars.into_iter().collect()
            });
            assert_eq!(swapped, expected);
            assert_eq!(mistyped(&|line| line[..line.len() - 1].to_owned()), expected);
            let strange = mistyped(&|line| line.replacen(": ", ": U", 1));
            assert_eq!(strange, format!("line {wanted}: U is not one of its characters"));
        }
        assert!(
            said(|n, line| if n == 3 { line.to_owned() + "00" } else { line.to_owned() })
                .starts_with("line 3: 46 characters")
        );
        assert_eq!(said(|n, line| if n == 3 { String::new() } else { line.to_owned() }), "line 3: missing");
        let last = said(|n, line| if n == end { String::new() } else { line.to_owned() });
        assert_eq!(last, format!("line {end}: missing"));
        let all = said(|_, line| line.replacen(": ", ": U", 1));
        assert!(all.starts_with("line 1: U is not") && all.ends_with("more"), "{all}");
        // A whole line under another's number.
        let moved = said(|n, line| if n == 2 { line.replace("  2:", "  3:") } else { line.to_owned() });
        assert!(moved.contains("line 3: mistyped") && moved.contains("line 2: missing"), "{moved}");
        assert!(KeyExport::parse("").unwrap_err().to_string().contains("no numbered lines"));
    }

    #[test]
    fn lines_of_two_exports_do_not_make_one() {
        let mut other = sample();
        other.key.kdf.salt = pack_id(b"other").as_bytes().to_vec();
        let other = other.to_text().unwrap();
        let other: BTreeMap<u32, &str> =
            other.lines().filter_map(|line| Some((numbered(line)?.0, line))).collect();
        let mixed = said(|n, line| if n == 6 { other[&6].to_owned() } else { line.to_owned() });
        assert!(mixed.contains("are all of one export?"), "{mixed}");
        let mut longer = sample();
        longer.key.wrapped.extend([1; 40]);
        let longer = longer.to_text().unwrap();
        let last = longer.lines().rfind(|line| numbered(line).is_some()).unwrap();
        let mixed = KeyExport::parse(&(text() + last)).unwrap_err().to_string();
        assert!(mixed.contains("of another export"), "{mixed}");
    }
}
