//! A serving file: rows that are found by a hash, with at most two reads of a few hundred bytes.
//!
//! ```text
//! rows                    each as it was pushed
//! for each index:
//!   entries               key u64, offset u64, length u32: a row each, sorted by key
//!   starts                u32: the first entry of each bucket, and the number of entries
//!   tags                  u8: the last byte of each entry's key
//! footer                  JSON: what the file was made of, and where its parts are
//! length of footer u32, xxh3-64 of all starts, tags and the footer u64, magic
//! ```
//!
//! Keys are hashes, so their high bits spread entries evenly over buckets of [`BUCKET_ENTRIES`]. Only `starts` and `tags`
//! are held in memory, one and a half bytes an entry: they tell where an entry must be, and almost always when there is
//! none, without a read. Everything else is read when it is asked for and stays with the operating system's page cache.
//!
//! Invariants: a file is written under another name, synced, and renamed when it is complete, and never changed after
//! that; a file that is torn, or made of something else, does not open.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};

const MAGIC: &[u8; 8] = b"ccserve1";
/// Behind the footer: its length, the checksum, the magic.
const TAIL_BYTES: u64 = 4 + 8 + 8;
const ENTRY_BYTES: usize = 20;
/// More make the directory smaller, and the share of needless reads larger: one in 256 for each.
const BUCKET_ENTRIES: usize = 8;
/// What follows the name of a serving file.
pub const EXTENSION: &str = "serve";

/// What a serving file was made of: where this is the same, so are the rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The version of the rows' encoding.
    pub encoding: u32,
    /// The table's folder in the store.
    pub table: String,
    /// Identity fields, or the attributes with their types: what the rows' numbers stand for.
    pub names: Vec<String>,
    /// The data files, by their paths within the table; such a file never changes.
    pub files: Vec<String>,
}

impl About {
    /// The name of the serving file.
    pub fn file_name(&self) -> String {
        let text = serde_json::to_vec(self).unwrap_or_default();
        format!("{:032x}.{EXTENSION}", xxh3_128(&text))
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Footer {
    about: About,
    /// Where the rows end.
    rows_end: u64,
    indexes: Vec<Place>,
}

/// Where an index is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    entries_at: u64,
    entries: u32,
    buckets: u32,
}

impl Place {
    fn starts_at(&self) -> u64 {
        self.entries_at.saturating_add(u64::from(self.entries) * ENTRY_BYTES as u64)
    }

    fn directory_bytes(&self) -> usize {
        (self.buckets as usize + 1) * 4 + self.entries as usize
    }

    fn end(&self) -> u64 {
        self.starts_at().saturating_add(self.directory_bytes() as u64)
    }
}

/// The bucket of a key; ascending, as keys are.
fn bucket(key: u64, buckets: u32) -> usize {
    ((u128::from(key) * u128::from(buckets)) >> 64) as usize
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    key: u64,
    offset: u64,
    length: u32,
}

/// Writes a serving file whose rows have `KEYS` keys each. Memory: 24 bytes for each key of each row.
pub struct SegmentWriter<const KEYS: usize> {
    file: BufWriter<File>,
    temporary: tempfile::TempPath,
    target: PathBuf,
    about: About,
    at: u64,
    indexes: [Vec<Entry>; KEYS],
}

impl<const KEYS: usize> SegmentWriter<KEYS> {
    /// Begins a file in that folder.
    pub fn new(folder: &Path, about: About) -> io::Result<Self> {
        let target = folder.join(about.file_name());
        let (file, temporary) =
            tempfile::Builder::new().prefix("building-").suffix(".tmp").tempfile_in(folder)?.into_parts();
        let file = BufWriter::with_capacity(1 << 18, file);
        Ok(Self { file, temporary, target, about, at: 0, indexes: std::array::from_fn(|_| Vec::new()) })
    }

    /// Appends a row.
    pub fn push(&mut self, keys: [u64; KEYS], row: &[u8]) -> io::Result<()> {
        let length = u32::try_from(row.len()).map_err(|_| io::Error::other("a row of more than 4 GiB"))?;
        for (index, key) in self.indexes.iter_mut().zip(keys) {
            index.push(Entry { key, offset: self.at, length });
        }
        self.at += u64::from(length);
        self.file.write_all(row)
    }

    /// Completes the file, and opens it.
    pub fn finish(mut self) -> io::Result<Segment> {
        let rows_end = self.at;
        let mut checksum = Xxh3Default::new();
        let mut places = Vec::with_capacity(KEYS);
        for mut entries in std::mem::replace(&mut self.indexes, std::array::from_fn(|_| Vec::new())) {
            entries.sort_unstable();
            let count = u32::try_from(entries.len()).map_err(|_| io::Error::other("too many rows for a file"))?;
            let place = Place { entries_at: self.at, entries: count, buckets: count / BUCKET_ENTRIES as u32 + 1 };
            for entry in &entries {
                self.file.write_all(&entry.key.to_le_bytes())?;
                self.file.write_all(&entry.offset.to_le_bytes())?;
                self.file.write_all(&entry.length.to_le_bytes())?;
            }
            let mut directory = Vec::with_capacity(place.directory_bytes());
            let mut next = 0;
            for number in 0..=place.buckets as usize {
                while next < entries.len() && bucket(entries[next].key, place.buckets) < number {
                    next += 1;
                }
                directory.extend_from_slice(&(next as u32).to_le_bytes());
            }
            directory.extend(entries.iter().map(|entry| entry.key as u8));
            checksum.update(&directory);
            self.file.write_all(&directory)?;
            self.at = place.end();
            places.push(place);
        }
        let footer = Footer { about: self.about, rows_end, indexes: places };
        let text = serde_json::to_vec(&footer)?;
        checksum.update(&text);
        self.file.write_all(&text)?;
        self.file.write_all(&(text.len() as u32).to_le_bytes())?;
        self.file.write_all(&checksum.digest().to_le_bytes())?;
        self.file.write_all(MAGIC)?;
        self.file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        self.temporary.persist(&self.target)?;
        Segment::open(&self.target)
    }
}

/// An opened serving file.
#[derive(Debug)]
pub struct Segment {
    file: File,
    path: PathBuf,
    about: About,
    rows_end: u64,
    indexes: Vec<Index>,
}

#[derive(Debug)]
struct Index {
    place: Place,
    starts: Box<[u32]>,
    tags: Box<[u8]>,
}

impl Segment {
    /// Opens a complete file. Whatever is not is an error of the kind [`io::ErrorKind::InvalidData`].
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let (footer, text, checksum) = read_footer(&file)?;
        let mut computed = Xxh3Default::new();
        let mut indexes = Vec::with_capacity(footer.indexes.len());
        for place in footer.indexes {
            let mut directory = vec![0; place.directory_bytes()];
            file.read_exact_at(&mut directory, place.starts_at())?;
            computed.update(&directory);
            let (starts, tags) = directory.split_at((place.buckets as usize + 1) * 4);
            let starts: Box<[u32]> = starts.chunks_exact(4).map(|bytes| u32_at(bytes, 0)).collect();
            indexes.push(Index { place, starts, tags: tags.into() });
        }
        computed.update(&text);
        if computed.digest() != checksum {
            return Err(torn("its checksum is another"));
        }
        Ok(Self { file, path: path.to_path_buf(), about: footer.about, rows_end: footer.rows_end, indexes })
    }

    /// What a file says that it was made of; nothing else of it is checked.
    pub fn about_of(path: &Path) -> io::Result<About> {
        Ok(read_footer(&File::open(path)?)?.0.about)
    }

    /// What it was made of.
    pub fn about(&self) -> &About {
        &self.about
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it takes in memory, in bytes.
    pub fn memory(&self) -> u64 {
        self.indexes.iter().map(|index| (index.starts.len() * 4 + index.tags.len()) as u64).sum()
    }

    /// Calls `visit` with each row that has this key in that index. `buffer` is only for its memory.
    pub fn find(
        &self,
        index: usize,
        key: u64,
        buffer: &mut Vec<u8>,
        mut visit: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(index) = self.indexes.get(index) else { return Ok(()) };
        let candidates = index.candidates(key);
        if candidates.is_empty() {
            return Ok(());
        }
        // mostly one entry: on the stack
        let mut block = [0; BUCKET_ENTRIES * ENTRY_BYTES];
        for from in candidates.clone().step_by(BUCKET_ENTRIES) {
            let count = (candidates.end - from).min(BUCKET_ENTRIES);
            let entries = &mut block[..count * ENTRY_BYTES];
            self.file.read_exact_at(entries, index.place.entries_at + (from * ENTRY_BYTES) as u64)?;
            for entry in entries.chunks_exact(ENTRY_BYTES) {
                if u64_at(entry, 0) != key {
                    continue;
                }
                let (offset, length) = (u64_at(entry, 8), u32_at(entry, 16));
                if offset.checked_add(u64::from(length)).is_none_or(|end| end > self.rows_end) {
                    return Err(torn("a row is beyond its end"));
                }
                buffer.resize(length as usize, 0);
                self.file.read_exact_at(buffer, offset)?;
                visit(buffer)?;
            }
        }
        Ok(())
    }
}

impl Index {
    /// The entries from the first to the last that may have this key.
    fn candidates(&self, key: u64) -> Range<usize> {
        let bucket = bucket(key, self.place.buckets);
        let (Some(start), Some(end)) = (self.starts.get(bucket), self.starts.get(bucket + 1)) else { return 0..0 };
        let (start, end) = (*start as usize, *end as usize);
        let Some(tags) = self.tags.get(start..end) else { return 0..0 };
        let tag = key as u8;
        match (tags.iter().position(|other| *other == tag), tags.iter().rposition(|other| *other == tag)) {
            (Some(first), Some(last)) => start + first..start + last + 1,
            _ => 0..0,
        }
    }
}

/// The footer, its text, and the checksum behind it.
fn read_footer(file: &File) -> io::Result<(Footer, Vec<u8>, u64)> {
    let size = file.metadata()?.len();
    let tail_at = size.checked_sub(TAIL_BYTES).ok_or_else(|| torn("it is too short"))?;
    let mut tail = [0; TAIL_BYTES as usize];
    file.read_exact_at(&mut tail, tail_at)?;
    if tail[12..] != *MAGIC {
        return Err(torn("it has no end"));
    }
    let length = u64::from(u32_at(&tail, 0));
    let footer_at = tail_at.checked_sub(length).ok_or_else(|| torn("its footer is cut"))?;
    let mut text = vec![0; length as usize];
    file.read_exact_at(&mut text, footer_at)?;
    let footer: Footer = serde_json::from_slice(&text).map_err(|_| torn("its footer cannot be read"))?;
    let mut at = footer.rows_end;
    for place in &footer.indexes {
        // end to end, so that nothing that is read later lies outside of the file
        if place.entries_at != at {
            return Err(torn("its parts do not fit"));
        }
        at = place.end();
    }
    if at != footer_at {
        return Err(torn("its parts do not fit"));
    }
    Ok((footer, text, u64_at(&tail, 4)))
}

fn torn(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a serving file cannot be used: {why}"))
}

/// The integer at that position; 0 beyond the end, which callers have ruled out.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn about(files: &[&str]) -> About {
        let files = files.iter().map(|file| file.to_string()).collect();
        About { encoding: 1, table: "records/x".into(), names: vec!["a:int".into()], files }
    }

    fn found(segment: &Segment, index: usize, key: u64) -> Vec<String> {
        let mut rows = Vec::new();
        let visit = |row: &[u8]| {
            rows.push(String::from_utf8(row.to_vec()).unwrap());
            Ok(())
        };
        segment.find(index, key, &mut Vec::new(), visit).unwrap();
        rows
    }

    proptest::proptest! {
        #[test]
        fn a_row_is_found_by_each_of_its_keys_and_by_no_other(count in 0usize..400, groups in 1u64..50) {
            let folder = tempfile::tempdir().unwrap();
            let mut writer = SegmentWriter::<2>::new(folder.path(), about(&["f"])).unwrap();
            let key = |n: u64| xxh3_64(&n.to_le_bytes());
            for n in 0..count as u64 {
                writer.push([key(n), key(n % groups)], format!("row {n}").as_bytes()).unwrap();
            }
            let segment = writer.finish().unwrap();
            for n in 0..count as u64 + 50 {
                let expected: Vec<String> = (n < count as u64).then(|| format!("row {n}")).into_iter().collect();
                assert_eq!(found(&segment, 0, key(n)), expected);
            }
            for group in 0..groups + 5 {
                let rows = (0..count as u64).filter(|n| group < groups && n % groups == group);
                assert_eq!(found(&segment, 1, key(group)), rows.map(|n| format!("row {n}")).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn keys_at_the_ends_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = SegmentWriter::<1>::new(folder.path(), about(&["f"])).unwrap();
        for key in [0, u64::MAX, 1 << 63, u64::MAX] {
            writer.push([key], format!("{key}").as_bytes()).unwrap();
        }
        let segment = writer.finish().unwrap();
        assert_eq!(found(&segment, 0, 0), ["0"]);
        assert_eq!(found(&segment, 0, u64::MAX).len(), 2);
        assert!(found(&segment, 0, 255).is_empty());
    }

    #[test]
    fn a_torn_file_does_not_open_and_an_unfinished_one_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = SegmentWriter::<1>::new(folder.path(), about(&["f"])).unwrap();
        for n in 0..1000_u64 {
            writer.push([xxh3_64(&n.to_le_bytes())], b"row").unwrap();
        }
        let path = folder.path().join(about(&["f"]).file_name());
        assert!(!path.exists());
        let whole = std::fs::read(writer.finish().unwrap().path()).unwrap();
        for cut in [0, 7, 2000, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(Segment::open(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{cut}");
        }
        // what a power cut may leave: the right size, and zeros
        let mut zeros = whole.clone();
        zeros[24_000..24_100].fill(0);
        std::fs::write(&path, &zeros).unwrap();
        assert_eq!(Segment::open(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(Segment::open(&path).unwrap().about(), &about(&["f"]));
        assert_ne!(about(&["f"]).file_name(), about(&["g"]).file_name());
    }
}
