//! A backend whose transfers keep to so many bytes a second.
//!
//! A transfer waits before it begins, as long as its bytes take at the limit. So nothing is sent at once and
//! waited for afterwards, and what went over the line by any moment is never more than the limit allows, plus
//! [`BURST`]. All threads share one budget in each direction.
//!
//! Uploads and long ranges, that is packs, pass in slices, each after its own wait. Whole objects are read and
//! written by the backend in one go, so a large one (the index) waits long and then passes at the speed of the
//! line. Whole objects of at most [`SMALL`] bytes (locks, session markers, snapshots) are counted and do not wait,
//! so that no heartbeat comes late; the next transfer waits for them. Listings and requests without content are
//! not counted.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Abilities, Backend, Folder, Head, ObjectInfo, PutMode, Upload};
use crate::error::StorageError;

/// How much may pass without waiting after a pause: what the limit allows in this time.
pub const BURST: Duration = Duration::from_millis(250);
/// Largest whole object that does not wait, in bytes.
pub const SMALL: u64 = 64 << 10;
/// Bytes of one slice: what passes in [`BURST`], within these bounds. What fits in the smallest is never cut, and
/// so from one state of an object that somebody may replace (the head of the index).
const SLICE: (u64, u64) = (256 << 10, 1 << 20);
/// How long a request to stop waiting may go unnoticed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a [`ThrottledBackend`] keeps to.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Bytes a second written to the repository; `None` for as many as there are.
    pub upload: Option<NonZeroU64>,
    /// Bytes a second read from it.
    pub download: Option<NonZeroU64>,
    /// Nothing waits any more once somebody sets this: what is under way is to end.
    pub cancel: Arc<AtomicBool>,
}

impl Limits {
    /// The backend itself where there is no limit, else one that keeps to these.
    pub fn apply(self, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
        match (self.upload, self.download) {
            (None, None) => backend,
            _ => Arc::new(ThrottledBackend::new(backend, self, Box::new(SystemClock(Instant::now())))),
        }
    }
}

/// Time, for tests to replace.
trait Clock: Send + Sync {
    /// Since some fixed moment.
    fn now(&self) -> Duration;
    fn sleep(&self, time: Duration);
}

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// A token bucket, kept as the moment until which its budget is spent.
struct Bucket {
    /// Bytes a second.
    rate: NonZeroU64,
    spent_until: Mutex<Duration>,
}

impl Bucket {
    fn new(rate: NonZeroU64) -> Self {
        Bucket { rate, spent_until: Mutex::new(Duration::ZERO) }
    }

    /// Takes bytes out of the budget. Returns how long to wait before they are moved.
    fn take(&self, bytes: u64, now: Duration) -> Duration {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate.get());
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut spent_until = self.spent_until.lock();
        *spent_until = (*spent_until).max(now).saturating_add(cost);
        spent_until.saturating_sub(now.saturating_add(BURST))
    }

    /// Bytes that are moved at once of something long.
    fn slice(&self) -> usize {
        let burst = u128::from(self.rate.get()) * BURST.as_millis() / 1000;
        u64::try_from(burst).unwrap_or(u64::MAX).clamp(SLICE.0, SLICE.1) as usize
    }
}

/// Another backend, with transfers that keep to [`Limits`].
pub struct ThrottledBackend {
    inner: Arc<dyn Backend>,
    upload: Option<Bucket>,
    download: Option<Bucket>,
    cancel: Arc<AtomicBool>,
    clock: Box<dyn Clock>,
}

impl ThrottledBackend {
    fn new(inner: Arc<dyn Backend>, limits: Limits, clock: Box<dyn Clock>) -> Self {
        let Limits { upload, download, cancel } = limits;
        ThrottledBackend {
            inner,
            upload: upload.map(Bucket::new),
            download: download.map(Bucket::new),
            cancel,
            clock,
        }
    }

    /// Waits until `bytes` may be moved.
    fn wait(&self, bucket: &Bucket, bytes: u64) {
        let mut now = self.clock.now();
        let until = now.saturating_add(bucket.take(bytes, now));
        while now < until && !self.cancel.load(Ordering::Relaxed) {
            self.clock.sleep((until - now).min(LOOK_EVERY));
            now = self.clock.now();
        }
    }

    /// Counts a whole object, and waits until it may be moved, unless it is small.
    fn wait_for_object(&self, bucket: &Bucket, bytes: u64) {
        match bytes <= SMALL {
            true => drop(bucket.take(bytes, self.clock.now())),
            false => self.wait(bucket, bytes),
        }
    }
}

impl Backend for ThrottledBackend {
    fn url(&self) -> &str {
        self.inner.url()
    }

    fn prepare(&self) -> Result<(), StorageError> {
        self.inner.prepare()
    }

    fn leftovers(&self, min_age: Duration) -> Result<Vec<ObjectInfo>, StorageError> {
        self.inner.leftovers(min_age)
    }

    fn remove_leftover(&self, name: &str) -> Result<(), StorageError> {
        self.inner.remove_leftover(name)
    }

    fn get(&self, key: &str, max: u64) -> Result<Vec<u8>, StorageError> {
        let Some(bucket) = &self.download else { return self.inner.get(key, max) };
        // What is not there, or too large, is not moved: reading says so.
        let expected = self.inner.size(key).ok().filter(|size| *size <= max).unwrap_or(0);
        self.wait_for_object(bucket, expected);
        let data = self.inner.get(key, max)?;
        // Somebody may have replaced it by a larger one.
        bucket.take((data.len() as u64).saturating_sub(expected), self.clock.now());
        Ok(data)
    }

    fn get_range_into(
        &self,
        key: &str,
        offset: u64,
        len: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        let Some(bucket) = &self.download else { return self.inner.get_range_into(key, offset, len, out) };
        let slice = bucket.slice();
        if len <= slice {
            self.wait(bucket, len as u64);
            return self.inner.get_range_into(key, offset, len, out);
        }
        let end = offset.saturating_add(len as u64);
        // Before anybody waits, or allocates, for what a damaged index asks for.
        if end > self.inner.size(key)? {
            return Err(StorageError::Short { key: key.to_owned(), end });
        }
        out.clear();
        out.reserve(len);
        let mut part = Vec::new();
        while out.len() < len {
            let wanted = slice.min(len - out.len());
            self.wait(bucket, wanted as u64);
            self.inner.get_range_into(key, offset + out.len() as u64, wanted, &mut part)?;
            out.extend_from_slice(&part);
        }
        Ok(())
    }

    fn head(&self, key: &str, len: usize) -> Result<Head, StorageError> {
        if let Some(bucket) = &self.download {
            self.wait_for_object(bucket, len as u64);
        }
        self.inner.head(key, len)
    }

    fn abilities(&self) -> Abilities {
        self.inner.abilities()
    }

    fn delete_many(&self, keys: &[String], deleted: &mut dyn FnMut(&str)) -> Result<(), StorageError> {
        self.inner.delete_many(keys, deleted)
    }

    /// What it does there is not limited.
    fn folder(&self) -> Option<&dyn Folder> {
        self.inner.folder()
    }

    fn put_if(
        &self,
        key: &str,
        data: &[u8],
        mode: PutMode,
        still: &mut dyn FnMut() -> bool,
    ) -> Result<bool, StorageError> {
        if let Some(bucket) = &self.upload {
            self.wait_for_object(bucket, data.len() as u64);
        }
        self.inner.put_if(key, data, mode, still)
    }

    fn upload(&self) -> Result<Box<dyn Upload + '_>, StorageError> {
        let inner = self.inner.upload()?;
        Ok(match &self.upload {
            None => inner,
            Some(bucket) => Box::new(ThrottledUpload { inner, throttle: self, bucket }),
        })
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        self.inner.list(prefix)
    }

    fn delete(&self, key: &str) -> Result<(), StorageError> {
        self.inner.delete(key)
    }

    fn size(&self, key: &str) -> Result<u64, StorageError> {
        self.inner.size(key)
    }

    fn exists(&self, key: &str) -> Result<bool, StorageError> {
        self.inner.exists(key)
    }
}

/// An upload whose bytes wait.
struct ThrottledUpload<'b> {
    inner: Box<dyn Upload + 'b>,
    throttle: &'b ThrottledBackend,
    bucket: &'b Bucket,
}

impl Upload for ThrottledUpload<'_> {
    fn write(&mut self, data: &[u8]) -> Result<(), StorageError> {
        for slice in data.chunks(self.bucket.slice()) {
            self.throttle.wait(self.bucket, slice.len() as u64);
            self.inner.write(slice)?;
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), StorageError> {
        self.inner.read_at(offset, out)
    }

    fn finish(self: Box<Self>, key: &str) -> Result<(), StorageError> {
        self.inner.finish(key)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::testing::{Call, TestBackend};
    use super::super::{LocalBackend, MemoryBackend};
    use super::*;
    use std::path::Path;

    const MIB: u64 = 1 << 20;

    /// Time passes only while somebody sleeps.
    #[derive(Clone, Default)]
    struct MockClock(Arc<Mutex<Duration>>);

    impl Clock for MockClock {
        fn now(&self) -> Duration {
            *self.0.lock()
        }

        fn sleep(&self, time: Duration) {
            *self.0.lock() += time;
        }
    }

    /// When and how much was moved.
    type Moves = Arc<Mutex<Vec<(Duration, u64)>>>;

    /// One MiB a second in both directions, on a clock of its own.
    pub fn throttled(inner: MemoryBackend) -> ThrottledBackend {
        line(inner).0
    }

    fn line(inner: MemoryBackend) -> (ThrottledBackend, MockClock, Moves) {
        let (clock, moves) = (MockClock::default(), Moves::default());
        let line = TestBackend::new(inner).with_upload_steps();
        let moved = {
            let (clock, moves) = (clock.clone(), moves.clone());
            move |bytes: u64| moves.lock().push((clock.now(), bytes))
        };
        let got = moved.clone();
        line.before(move |op, _| {
            if matches!(op.call, Call::GetRange | Call::Put | Call::Upload) && op.bytes > 0 {
                moved(op.bytes as u64);
            }
            Ok(())
        });
        line.after(move |op, inner: &MemoryBackend| {
            if let (Call::Get, Ok(size)) = (op.call, inner.size(op.key)) {
                got(size);
            }
        });
        let rate = NonZeroU64::new(MIB);
        let limits = Limits { upload: rate, download: rate, ..Limits::default() };
        (ThrottledBackend::new(Arc::new(line), limits, Box::new(clock.clone())), clock, moves)
    }

    /// At no moment more had passed than a MiB a second and the burst allow.
    fn assert_paced(moves: &Moves) {
        let mut passed = 0;
        for (at, bytes) in moves.lock().iter() {
            passed += bytes;
            let allowed = (*at + BURST).as_secs_f64() * MIB as f64;
            assert!(passed as f64 <= allowed + 1.0, "{passed} bytes at {at:?}");
        }
    }

    #[test]
    fn writes_wait_in_proportion_before_they_begin() {
        let (backend, clock, moves) = line(MemoryBackend::new());
        for (n, size) in [8 * MIB, 100_000, 3 * MIB, SMALL + 1, 20 * MIB].into_iter().enumerate() {
            backend.put(&format!("packs/{n}"), &vec![0; size as usize], PutMode::Replace).unwrap();
        }
        assert_paced(&moves);
        assert_eq!(moves.lock()[0].0, Duration::from_secs(8) - BURST, "not sent first and waited for then");
        let all: u64 = moves.lock().iter().map(|m| m.1).sum();
        let took = clock.now().as_secs_f64();
        let needed = all as f64 / MIB as f64 - BURST.as_secs_f64();
        assert!((took - needed).abs() < 0.001, "{took} s for {all} bytes, no slower than it must be");
    }

    #[test]
    fn long_ranges_pass_in_slices() {
        let inner = MemoryBackend::new();
        let data: Vec<u8> = (0..5 * MIB).map(|n| (n % 251) as u8).collect();
        inner.put("packs/p", &data, PutMode::Replace).unwrap();
        let (backend, clock, moves) = line(inner);
        let read = backend.get_range("packs/p", 7, 4 << 20).unwrap();
        assert!(read == data[7..7 + (4 << 20)]);
        assert_paced(&moves);
        assert!(moves.lock().len() >= 16, "{} slices", moves.lock().len());
        assert_eq!(clock.now(), Duration::from_secs(4) - BURST);
        let error = backend.get_range("packs/p", MIB, 5 << 20).unwrap_err();
        assert!(matches!(error, StorageError::Short { end, .. } if end == 6 * MIB), "{error}");
        assert_eq!(clock.now(), Duration::from_secs(4) - BURST, "nobody waits for what is not there");
    }

    #[test]
    fn uploads_pass_in_slices() {
        let (backend, clock, moves) = line(MemoryBackend::new());
        let mut upload = backend.upload().unwrap();
        upload.write(&vec![1; 3 << 20]).unwrap();
        upload.write(&vec![2; 1 << 20]).unwrap();
        assert_paced(&moves);
        assert!(moves.lock().len() >= 16, "{} slices", moves.lock().len());
        assert_eq!(clock.now(), Duration::from_secs(4) - BURST);
        upload.finish("packs/p").unwrap();
        let data = backend.inner.get("packs/p", u64::MAX).unwrap();
        assert!(
            data.len() == 4 << 20
                && data[..3 << 20].iter().all(|b| *b == 1)
                && data[3 << 20..].iter().all(|b| *b == 2)
        );
    }

    #[test]
    fn whole_objects_are_paced_when_they_are_read() {
        let inner = MemoryBackend::new();
        inner.put("index", &vec![1; 3 << 20], PutMode::Replace).unwrap();
        let (backend, clock, moves) = line(inner);
        assert_eq!(backend.get("index", 4 * MIB).unwrap().len(), 3 << 20);
        assert_eq!(backend.get("index", 4 * MIB).unwrap().len(), 3 << 20);
        assert_paced(&moves);
        assert_eq!(clock.now(), Duration::from_secs(6) - BURST);
        assert!(matches!(backend.get("index", MIB), Err(StorageError::TooLarge { .. })));
        assert_eq!(clock.now(), Duration::from_secs(6) - BURST, "what is refused is not waited for");
    }

    #[test]
    fn small_objects_do_not_wait_and_are_paid_for_later() {
        let (backend, clock, _) = line(MemoryBackend::new());
        for n in 0..64 {
            backend.put(&format!("locks/{n}"), &vec![0; SMALL as usize], PutMode::Replace).unwrap();
        }
        assert_eq!(clock.now(), Duration::ZERO);
        backend.put("packs/p", &vec![0; MIB as usize], PutMode::Replace).unwrap();
        assert_eq!(clock.now(), Duration::from_secs(5) - BURST);
    }

    #[test]
    fn a_pause_saves_up_no_more_than_the_burst() {
        let (backend, clock, moves) = line(MemoryBackend::new());
        clock.sleep(Duration::from_secs(3600));
        backend.put("packs/p", &vec![0; 2 << 20], PutMode::Replace).unwrap();
        assert_eq!(moves.lock()[0].0, Duration::from_secs(3602) - BURST);
    }

    #[test]
    fn threads_share_one_budget() {
        let bucket = Bucket::new(NonZeroU64::new(MIB).unwrap());
        // All of them ask at the same moment.
        let waits: Vec<_> = (0..4).map(|_| bucket.take(MIB, Duration::ZERO)).collect();
        let expected: Vec<_> = (1..=4).map(|n| Duration::from_secs(n) - BURST).collect();
        assert_eq!(waits, expected);
    }

    #[test]
    fn no_size_or_limit_overflows() {
        for rate in [1, u64::MAX] {
            let bucket = Bucket::new(NonZeroU64::new(rate).unwrap());
            for _ in 0..3 {
                bucket.take(u64::MAX, Duration::MAX);
            }
            assert!((SLICE.0..=SLICE.1).contains(&(bucket.slice() as u64)));
        }
    }

    #[test]
    fn nobody_waits_once_it_is_cancelled() {
        let limits = Limits { upload: NonZeroU64::new(1), ..Limits::default() };
        let cancel = limits.cancel.clone();
        let backend = limits.apply(Arc::new(MemoryBackend::new()));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                cancel.store(true, Ordering::Relaxed);
            });
            // At one byte a second this takes twelve days.
            backend.put("packs/p", &vec![0; MIB as usize], PutMode::Replace).unwrap();
        });
        assert_eq!(backend.size("packs/p").unwrap(), MIB);
    }

    #[test]
    fn only_a_limit_comes_between() {
        let inner: Arc<dyn Backend> = Arc::new(MemoryBackend::new());
        assert!(Arc::ptr_eq(&Limits::default().apply(inner.clone()), &inner));
        let limits = Limits { upload: NonZeroU64::new(1), ..Limits::default() };
        let backend = limits.apply(Arc::new(LocalBackend::new("/folder")));
        assert_eq!(
            backend.local_path(),
            Some(Path::new("/folder")),
            "a backup must not store its repository"
        );
    }
}
