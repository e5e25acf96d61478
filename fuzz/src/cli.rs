//! Values of options on the command line.

use vykar_core::codec::compress::Compression;
use vykar_core::format::Encryption;

#[path = "../../vykar-cli/src/parse.rs"]
mod parse;

use parse::DataSubset;

/// A value, taken for each kind of value.
pub fn cli(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(bytes) = parse::bytes(text) {
        assert_eq!(parse::cache_size(text).is_ok(), bytes >= 16 << 20);
        assert_eq!(parse::pack_size(text).is_ok(), (1 << 10..=512 << 20).contains(&bytes));
        if bytes % 1024 == 0 {
            assert_eq!(parse::bytes(&format!("{}K", bytes / 1024)), Ok(bytes));
        }
    } else {
        assert!(parse::cache_size(text).is_err() && parse::pack_size(text).is_err());
    }
    if parse::relative_path(text).is_ok() {
        let plain = |part| matches!(part, std::path::Component::Normal(_));
        assert!(std::path::Path::new(text).components().all(plain), "{text:?}");
    }
    let _ = (parse::marker(text), vykar_core::rules::check(data));
    assert!(parse::threads(text).is_ok_and(|n| n <= 512) || parse::threads(text).is_err());
    if let Ok(rate) = parse::rate(text) {
        assert!(rate == 0 || (1048..=1_000_000 << 20).contains(&rate));
    }
    if let Ok(kib) = parse::read_ahead(text) {
        assert!(kib <= 64 << 10);
    }
    if let Ok(bits) = parse::umask(text) {
        assert_eq!(parse::umask(&format!("{bits:o}")), Ok(bits));
    }
    if let Ok(duration) = parse::duration(text) {
        assert_eq!(parse::duration(&format!("{}h", duration.as_secs() / 3600)), Ok(duration));
    }
    match parse::data_subset(text) {
        Ok(DataSubset::Share(share)) => assert!(share > 0.0 && share <= 1.0),
        Ok(DataSubset::Part { part, of }) => assert!((1..=of).contains(&part)),
        Err(_) => {}
    }
    let _ = parse::since(text);
    if let Ok(by) = parse::group_by(text) {
        let names = [(by.host, "host"), (by.label, "label"), (by.paths, "paths")];
        let names: Vec<_> = names.into_iter().filter_map(|(named, name)| named.then_some(name)).collect();
        let again = if names.is_empty() { "none".to_owned() } else { names.join(",") };
        assert_eq!(parse::group_by(&again), Ok(by));
    }
    // Names are looked up in the system's lists, which is not what is tried here.
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) && text.len() < 10 {
        assert_eq!(parse::user(text).ok(), text.parse().ok());
        assert_eq!(parse::group(text), parse::user(text));
    }
    if let Ok(compression) = text.parse::<Compression>() {
        assert_eq!(compression.to_string().parse(), Ok(compression));
    }
    if let Ok(encryption) = text.parse::<Encryption>() {
        assert_eq!(encryption.to_string(), text);
    }
}
