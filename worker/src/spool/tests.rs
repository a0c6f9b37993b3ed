//! The promises of the spool, on disks that fill up, fail, and are left in the middle of a write.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};

use shared::id::Shard;
use shared::job::{Exit, Failure};
use shared::time::Time;
use tempfile::TempDir;

use super::segment::Segment;
use super::*;

pub fn entry(n: u8) -> Entry {
    let job = JobId::mint(Shard::new(3).unwrap(), Time::from_micros(1_000_000), [n; 10]);
    Entry { job, attempt: Attempt(2), epoch: Epoch(5), cgroup: Some("/sys/fs/cgroup/x".into()), outcome: None }
}

fn with(n: u8, end: Conclusion) -> Entry {
    Entry { outcome: Some(Outcome { end, log: LogSummary::default() }), ..entry(n) }
}

fn ended(n: u8) -> Entry {
    with(n, Conclusion::Ended(AttemptEnd::Stopped))
}

/// A disk that never syncs, so that a test can write much.
#[derive(Clone)]
struct Disk(Arc<Controls>);

struct Controls {
    /// The bytes that it has left; with less than none it takes everything and syncs nothing.
    room: AtomicI64,
    syncs: AtomicUsize,
    /// While it is, no sync comes to its end.
    stands_still: AtomicBool,
}

struct OnDisk {
    file: Box<dyn Segment>,
    disk: Disk,
}

impl Disk {
    fn new() -> Self {
        Self(Arc::new(Controls {
            room: AtomicI64::new(i64::MAX),
            syncs: AtomicUsize::new(0),
            stands_still: AtomicBool::new(false),
        }))
    }

    fn create(&self) -> Create {
        let disk = self.clone();
        Box::new(move |path| Ok(Box::new(OnDisk { file: create(path)?, disk: disk.clone() })))
    }

    fn open(&self, dir: &Path) -> (Spool, Vec<Entry>) {
        let (spool, mut left) = Spool::with(dir.to_owned(), self.create()).unwrap();
        left.sort_by_key(|entry| entry.job);
        (spool, left)
    }

    fn has_room(&self, bytes: i64) {
        self.0.room.store(bytes, SeqCst);
    }
}

impl Segment for OnDisk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = self.disk.0.room.load(SeqCst);
        assert_ne!(room, i64::MIN, "a test wants it");
        if room < 0 {
            return self.file.append(bytes);
        }
        let fits = bytes.len().min(usize::try_from(room).unwrap_or(0));
        self.file.append(&bytes[..fits])?;
        self.disk.has_room(room - i64::try_from(fits).unwrap());
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn make_room(&mut self, from: u64, bytes: usize) -> io::Result<()> {
        let fits = i64::try_from(bytes).unwrap() <= self.disk.0.room.load(SeqCst);
        if fits { self.file.make_room(from, bytes) } else { Err(io::ErrorKind::StorageFull.into()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.0.syncs.fetch_add(1, SeqCst);
        while self.disk.0.stands_still.load(SeqCst) {
            thread::yield_now();
        }
        if self.disk.0.room.load(SeqCst) < 0 { Err(io::Error::other("a disk that fails")) } else { Ok(()) }
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.file.cut(bytes)
    }
}

fn spool() -> (TempDir, Disk, Spool) {
    let (dir, disk) = (tempfile::tempdir().unwrap(), Disk::new());
    let (spool, left) = disk.open(dir.path());
    assert_eq!(left, []);
    (dir, disk, spool)
}

/// What the next start would find.
fn in_spool(dir: &Path) -> Vec<Entry> {
    let mut entries: Vec<Entry> = found::in_dir(dir).unwrap().entries.into_values().collect();
    entries.sort_by_key(|entry| entry.job);
    entries
}

fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == ending));
    found.sort();
    found
}

/// The one segment that there is.
fn segment(dir: &Path) -> PathBuf {
    let [segment] = &files(dir, found::SUFFIX)[..] else { panic!("one segment") };
    segment.clone()
}

/// What was written to that file, without the room that is left in it.
fn written(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    bytes
}

#[tokio::test]
async fn an_outcome_replaces_the_grant_and_leaves_when_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path().join("spool")).unwrap();
    spool.put(&entry(1)).await.unwrap();
    assert_eq!(in_spool(&dir.path().join("spool")), [entry(1)]);
    spool.put(&ended(1)).await.unwrap();
    drop(spool);
    let (spool, left) = Spool::open(dir.path().join("spool")).unwrap();
    assert_eq!(left, [ended(1)]);
    let mode = fs::metadata(segment(&dir.path().join("spool"))).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    spool.remove(entry(1).job, Attempt(2)).await.unwrap();
    spool.remove(entry(1).job, Attempt(2)).await.unwrap();
    spool.settled().await.unwrap();
    assert_eq!(in_spool(&dir.path().join("spool")), []);
    assert_eq!(Spool::open(dir.path().join("spool")).unwrap().1, []);
}

#[tokio::test]
async fn every_conclusion_is_read_again() {
    let (dir, _, spool) = spool();
    let park = LetGo::Park { key: "app".to_owned(), wait: Period::from_secs(600) };
    for end in
        [Conclusion::Ended(AttemptEnd::Succeeded), Conclusion::LetGo(park), Conclusion::LetGo(LetGo::GiveBack {})]
    {
        spool.put(&with(1, end.clone())).await.unwrap();
        assert_eq!(in_spool(dir.path()), [with(1, end)]);
    }
}

#[tokio::test]
async fn what_an_older_version_has_left_is_moved_into_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let failure = Failure::StepFailed { step: 0, exit: Exit::ExitCode(3), message: None };
    let failed = with(1, Conclusion::Ended(AttemptEnd::Failed { failure }));
    let log = serde_json::to_string(&LogSummary::default()).unwrap();
    // One that knew neither epochs nor attempts that are let go, and the last one before the journal.
    let older = format!(
        r#"{{"job":"{}","attempt":2,"cgroup":"/sys/fs/cgroup/x","outcome":
        {{"end":{{"end":"failed","failure":{{"reason":"step_failed","step":0,"exit_code":3}}}},"log":{log}}}}}"#,
        entry(1).job
    );
    let single = |entry: &Entry| dir.path().join(format!("{}-{}.json", entry.job, entry.attempt));
    fs::write(single(&entry(1)), older).unwrap();
    fs::write(single(&entry(2)), serde_json::to_vec(&ended(2)).unwrap()).unwrap();
    fs::write(dir.path().join("half.new"), "{").unwrap();
    fs::write(dir.path().join("broken.json"), "{").unwrap();
    let all = [Entry { epoch: Epoch(0), ..failed }, ended(2)];

    // Where there is no room yet it stays where it is.
    let disk = Disk::new();
    disk.has_room(100);
    let (full, left) = disk.open(dir.path());
    assert_eq!((left, files(dir.path(), "json").len()), (all.to_vec(), 3));
    drop(full);
    disk.has_room(i64::MAX);
    let (spool, left) = disk.open(dir.path());
    assert_eq!(left, all);
    assert_eq!(in_spool(dir.path()), all);
    assert_eq!((files(dir.path(), "json"), files(dir.path(), "new")), (vec![], vec![]));
    assert_eq!(files(dir.path(), "unreadable"), [dir.path().join("broken.unreadable")]);

    // One that couldn't be removed then says nothing against what was written since.
    fs::write(single(&entry(2)), serde_json::to_vec(&entry(2)).unwrap()).unwrap();
    drop(spool);
    assert_eq!(disk.open(dir.path()).1, all);
}

#[tokio::test]
async fn what_waits_is_written_and_synced_together() {
    let (dir, disk, spool) = spool();
    let syncs = || disk.0.syncs.load(SeqCst);
    let before = syncs();
    spool.put(&entry(0)).await.unwrap();
    assert_eq!(syncs(), before + 1, "one that is alone has a sync of its own");
    disk.0.stands_still.store(true, SeqCst);
    let put = |n: u16| {
        let (spool, job) = (spool.clone(), n);
        let bytes = [n.to_be_bytes(); 5].concat().try_into().unwrap();
        let job = JobId::mint(Shard::new(4).unwrap(), Time::from_micros(i64::from(job)), bytes);
        tokio::spawn(async move { spool.put(&Entry { job, ..entry(0) }).await })
    };
    let first = put(0);
    while syncs() < before + 2 {
        tokio::task::yield_now().await;
    }
    let rest: Vec<_> = (1..=1000).map(put).collect();
    while spool.writer.max_capacity() - spool.writer.capacity() < 1000 {
        tokio::task::yield_now().await;
    }
    assert!(!first.is_finished() && rest.iter().all(|one| !one.is_finished()), "none is kept before it is synced");
    disk.0.stands_still.store(false, SeqCst);
    for one in std::iter::once(first).chain(rest) {
        one.await.unwrap().unwrap();
    }
    assert_eq!(syncs(), before + 3, "a thousand that waited took one more");
    assert_eq!(in_spool(dir.path()).len(), 1002);

    for entry in in_spool(dir.path()) {
        spool.remove(entry.job, entry.attempt).await.unwrap();
    }
    spool.settled().await.unwrap();
    assert_eq!((syncs(), in_spool(dir.path()).len()), (before + 3, 0), "a removal takes none");
}

#[tokio::test]
async fn a_crash_at_any_byte_of_a_write_costs_nothing_that_was_kept() {
    let (dir, disk, spool) = spool();
    let mut kept = vec![(0, vec![])];
    let path = segment(dir.path());
    for (n, change) in [(1, entry(1)), (2, entry(2)), (1, ended(1)), (3, entry(3))] {
        spool.put(&change).await.unwrap();
        let mut after = kept.last().unwrap().1.clone();
        after.retain(|one: &Entry| one.job != entry(n).job);
        after.push(change);
        after.sort_by_key(|entry| entry.job);
        kept.push((written(&path).len(), after));
    }
    spool.remove(entry(2).job, Attempt(2)).await.unwrap();
    spool.settled().await.unwrap();
    kept.push((written(&path).len(), vec![ended(1), entry(3)]));
    let (whole, name) = (written(&path), path.file_name().unwrap());
    for (length, room) in (0..=whole.len()).flat_map(|length| [(length, 0), (length, 999)]) {
        let crashed = tempfile::tempdir().unwrap();
        fs::write(crashed.path().join(name), [&whole[..length], &vec![0; room]].concat()).unwrap();
        let (_, there) = kept.iter().rfind(|(bytes, _)| *bytes <= length).unwrap();
        let (next, left) = disk.open(crashed.path());
        assert_eq!(left, *there, "after {length} bytes");
        // What was broken off is gone, and what is written next counts.
        next.put(&entry(4)).await.unwrap();
        assert_eq!(in_spool(crashed.path()), [&there[..], &[entry(4)]].concat(), "after {length} bytes");
        assert_eq!(files(crashed.path(), "unreadable"), [] as [PathBuf; 0]);
    }
}

#[tokio::test]
async fn a_record_that_is_damaged_takes_no_other_along_and_its_file_is_put_aside() {
    let (dir, disk, spool) = spool();
    for n in [1, 2, 3] {
        spool.put(&entry(n)).await.unwrap();
    }
    drop(spool);
    let path = segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let middle = written(&path).len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    for _ in 0..2 {
        let (_, left) = disk.open(dir.path());
        assert_eq!(left, [entry(1), entry(3)]);
        let [aside] = &files(dir.path(), "unreadable")[..] else { panic!("one file aside") };
        assert_eq!(fs::read(aside).unwrap(), bytes);
    }
}

#[tokio::test]
async fn the_files_stay_small_however_much_comes_and_goes() {
    let (dir, disk, spool) = spool();
    spool.put(&ended(1)).await.unwrap();
    let (first, mut largest) = (segment(dir.path()), 0);
    while segment(dir.path()) == first {
        spool.probe().await.unwrap();
        spool.put(&entry(2)).await.unwrap();
        spool.remove(entry(2).job, Attempt(2)).await.unwrap();
        spool.settled().await.unwrap();
        largest = largest.max(fs::metadata(&first).map_or(0, |file| file.len()));
        let most = journal::SEGMENT_BYTES + journal::ROOM_BYTES_MAX;
        assert!(largest <= most, "it has grown to {largest} bytes");
    }
    assert!(largest > journal::SEGMENT_BYTES / 2, "it was left at {largest} bytes");
    assert_eq!(in_spool(dir.path()), [ended(1)]);
    assert!(written(&segment(dir.path())).len() < 1000);
    spool.put(&ended(2)).await.unwrap();
    drop(spool);
    assert_eq!(disk.open(dir.path()).1, [ended(1), ended(2)]);
}

/// Names of files, and what is in them.
type Files<'a> = &'a [(&'a Path, &'a [u8])];

#[tokio::test]
async fn a_crash_between_two_segments_costs_nothing() {
    let (dir, disk, spool) = spool();
    for change in [entry(1), entry(2), ended(1)] {
        spool.put(&change).await.unwrap();
    }
    let before = segment(dir.path());
    let old = fs::read(&before).unwrap();
    drop(spool);
    let (spool, left) = disk.open(dir.path());
    assert_eq!(left, [ended(1), entry(2)]);
    let after = segment(dir.path());
    assert_ne!(before, after);
    let begun = fs::read(&after).unwrap();
    spool.put(&ended(2)).await.unwrap();
    let gone_on = fs::read(&after).unwrap();

    let name = |path: &Path| path.file_name().unwrap().to_owned();
    let half = after.with_extension("new");
    let moments: [(Files, Entry); 5] = [
        (&[(&before, &old), (&half, &begun[..10])], entry(2)),
        (&[(&before, &old), (&half, &begun)], entry(2)),
        (&[(&before, &old), (&after, &begun)], entry(2)),
        (&[(&before, &old), (&after, &gone_on)], ended(2)),
        (&[(&after, &gone_on)], ended(2)),
    ];
    for (files, second) in moments {
        let crashed = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            fs::write(crashed.path().join(name(path)), bytes).unwrap();
        }
        let left = disk.open(crashed.path()).1;
        assert_eq!(left, [ended(1), second.clone()]);
        assert_eq!(fs::read_dir(crashed.path()).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn a_disk_without_room_keeps_what_it_has_and_takes_more_when_there_is_room() {
    let (dir, disk, spool) = spool();
    spool.put(&entry(1)).await.unwrap();
    spool.put(&entry(2)).await.unwrap();
    disk.has_room(50);
    assert!(spool.takes());
    assert_eq!(spool.put(&ended(1)).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
    spool.settled().await.unwrap();
    assert!(!spool.takes());
    assert_eq!(in_spool(dir.path()), [entry(1), entry(2)]);
    assert!(fs::read(segment(dir.path())).unwrap().ends_with(b"\n"), "half a record is left");
    assert_eq!(files(dir.path(), "new"), [] as [PathBuf; 0]);
    assert!(spool.probe().await.is_err() && !spool.takes());
    // It is forgotten all the same, and the writer goes on.
    spool.remove(entry(2).job, Attempt(2)).await.unwrap();

    disk.has_room(i64::MAX);
    spool.probe().await.unwrap();
    assert!(spool.takes());
    assert_eq!(in_spool(dir.path()), [entry(1)]);
    spool.put(&ended(1)).await.unwrap();
    drop(spool);
    assert_eq!(disk.open(dir.path()).1, [ended(1)]);
}

#[tokio::test]
async fn what_could_not_be_synced_is_not_kept_and_its_file_is_left() {
    let (dir, disk, spool) = spool();
    spool.put(&entry(1)).await.unwrap();
    let failed = segment(dir.path());
    disk.has_room(-1);
    spool.put(&entry(2)).await.unwrap_err();
    disk.has_room(i64::MAX);
    spool.put(&entry(3)).await.unwrap();
    assert_ne!(segment(dir.path()), failed);
    assert_eq!(in_spool(dir.path()), [entry(1), entry(3)]);
}

#[tokio::test]
async fn nobody_waits_for_a_writer_that_died() {
    let (_dir, disk, spool) = spool();
    disk.has_room(i64::MIN);
    let entries = [entry(1), entry(2)];
    let (one, other) = tokio::join!(spool.put(&entries[0]), spool.put(&entries[1]));
    assert!(one.is_err() && other.is_err() && spool.probe().await.is_err());
    assert!(!spool.takes());
}

#[tokio::test]
async fn a_file_that_somebody_removes_is_noticed_and_nothing_is_lost_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(dir.path().to_owned()).unwrap();
    spool.put(&entry(1)).await.unwrap();
    fs::remove_file(segment(dir.path())).unwrap();
    spool.put(&entry(2)).await.unwrap_err();
    spool.put(&entry(3)).await.unwrap();
    assert_eq!(in_spool(dir.path()), [entry(1), entry(3)]);
}

#[tokio::test]
async fn a_file_that_is_written_to_does_not_grow_with_each_entry() {
    let (dir, _disk, spool) = spool();
    spool.put(&entry(1)).await.unwrap();
    let length = || fs::metadata(segment(dir.path())).unwrap().len();
    let before = length();
    for n in 2..100 {
        spool.put(&entry(n)).await.unwrap();
    }
    assert_eq!(length(), before, "it had room");
    assert_eq!(in_spool(dir.path()).len(), 99);
    // More than the first room holds.
    for n in (0..100).cycle().take(1000) {
        spool.put(&entry(n)).await.unwrap();
    }
    assert!(length() > before);
    assert_eq!(in_spool(dir.path()).len(), 100);
}
