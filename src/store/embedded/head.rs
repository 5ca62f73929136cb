//! The first 64 bytes of a journal.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::domain::time::UnixMs;

/// Bytes before the first record.
pub(super) const HEAD_LEN: u64 = 64;
/// Names the format; its last byte is the version.
const MAGIC: [u8; 8] = *b"TPJRNL\0\x01";
/// Where the synced length lies: within one sector, so that it is written whole or not at all.
const SYNCED_AT: u64 = 48;

/// What a journal says of itself when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The last record that the copy at the start of the file includes.
    pub(super) number: u64,
    /// The latest end of a window that was forgotten.
    pub(super) forgotten_until: UnixMs,
    /// The store's steady time.
    pub(super) steady_ms: u64,
}

impl Head {
    /// Magic, three numbers, their checksum in eight bytes, and nothing synced.
    pub(super) fn to_bytes(self) -> [u8; 64] {
        let numbers = [self.number, self.forgotten_until.0, self.steady_ms];
        let mut bytes = MAGIC.to_vec();
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend(checksum(&bytes));
        bytes.extend([0; 8]);
        bytes.extend(synced(0));
        bytes.try_into().unwrap_or([0; 64])
    }

    /// Reads a head back, with the length that was synced; `None` if it is damaged.
    pub(super) fn read(bytes: &[u8; 64]) -> Option<(Self, u64)> {
        let (checked, rest) = bytes.split_at_checked(32)?;
        let magic = checked.strip_prefix(&MAGIC)?;
        let (sum, rest) = rest.split_first_chunk()?;
        let rest = rest.get(8..)?;
        let len = number(rest, 0)?;
        if *sum != checksum(checked) || *rest != synced(len) {
            return None;
        }
        let forgotten_until = UnixMs(number(magic, 1)?);
        Some((
            Self { number: number(magic, 0)?, forgotten_until, steady_ms: number(magic, 2)? },
            len,
        ))
    }
}

/// Notes that the first `len` bytes are durable.
pub(super) fn write_synced(file: &File, len: u64) -> io::Result<()> {
    file.write_all_at(&synced(len), SYNCED_AT)
}

fn synced(len: u64) -> [u8; 16] {
    let [a, b] = [len.to_le_bytes(), checksum(&len.to_le_bytes())];
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(a.into_iter().chain(b)) {
        *to = from;
    }
    bytes
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    u64::from(crc32fast::hash(bytes)).to_le_bytes()
}

fn number(bytes: &[u8], index: usize) -> Option<u64> {
    let (_, rest) = bytes.split_at_checked(index.checked_mul(8)?)?;
    rest.first_chunk().map(|number| u64::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_back_and_no_bit_of_it_can_be_wrong() {
        let head = Head { number: 7, forgotten_until: UnixMs(8), steady_ms: 9 };
        let bytes = head.to_bytes();
        assert_eq!(Head::read(&bytes), Some((head, 0)));
        for bit in (0..320).chain(384..512) {
            let mut wrong = bytes;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::read(&wrong), None, "bit {bit}");
        }
    }
}
