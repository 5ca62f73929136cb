//! A look at the frames of an HTTP/2 connection as they come in: how many there are of those that
//! cost us work and the client nothing.
//!
//! The library bounds what it stores: streams, header lists, CONTINUATION frames, streams that are
//! reset before they were seen. What it answers or throws away at once it does not count, so a
//! client could keep a core busy with it: a reset for every request, settings and pings to be
//! acknowledged, empty frames.

use tokio::time::{Duration, Instant};

/// The bytes that an HTTP/2 client begins with (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The head of a frame, in bytes.
const HEAD: usize = 9;
/// Counts are over so long.
const WINDOW: Duration = Duration::from_secs(10);
/// Frames other than HEADERS, DATA and RST_STREAM in a window: settings, pings and window updates of
/// an eager client are some dozens.
const CONTROLS_MAX: u64 = 1_000;
/// And one more for so many bytes in either direction: window updates and pings come with data.
const BYTES_PER_CONTROL: u64 = 256;

/// A client sends more of some kind than anybody needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flood;

/// Counts the frames of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; HEAD],
    have: usize,
    /// What is left of the frame's payload, in bytes.
    left: usize,
    /// Whether a header list has begun and not ended.
    in_headers: bool,
    /// Whether the frame at hand ends it.
    ends_headers: bool,
    resets: u64,
    resets_max: u64,
    controls: u64,
    bytes: u64,
    since: Instant,
}

impl Frames {
    /// For a connection at whose beginning the preface still is to be read.
    pub(super) fn new(resets_max: u64, now: Instant) -> Self {
        Self {
            head: [0; HEAD],
            have: 0,
            left: PREFACE.len(),
            in_headers: false,
            ends_headers: false,
            resets: 0,
            resets_max,
            controls: 0,
            bytes: 0,
            since: now,
        }
    }

    /// Whether a header list has begun and not ended.
    pub(super) fn in_headers(&self) -> bool {
        self.in_headers
    }

    /// Bytes went out.
    pub(super) fn wrote(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(0));
    }

    /// Bytes came in. Time is only asked for when there is a bound to measure.
    ///
    /// # Errors
    /// When there are too many frames of a kind.
    pub(super) fn read(
        &mut self,
        mut bytes: &[u8],
        now: impl FnOnce() -> Instant,
    ) -> Result<(), Flood> {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes.len()).unwrap_or(0));
        while !bytes.is_empty() {
            let n = self.left.min(bytes.len());
            bytes = bytes.get(n..).unwrap_or_default();
            self.left = self.left.saturating_sub(n);
            if self.left == 0 && self.ends_headers {
                self.in_headers = false;
            }
            while self.left == 0
                && let [first, rest @ ..] = bytes
            {
                bytes = rest;
                if let Some(slot) = self.head.get_mut(self.have) {
                    *slot = *first;
                }
                self.have = self.have.saturating_add(1);
                if self.have == HEAD {
                    self.have = 0;
                    self.begin();
                }
            }
        }
        if self.is_over() {
            let now = now();
            if now.saturating_duration_since(self.since) < WINDOW {
                return Err(Flood);
            }
            (self.since, self.resets, self.controls, self.bytes) = (now, 0, 0, 0);
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let controls_max = CONTROLS_MAX.saturating_add(self.bytes / BYTES_PER_CONTROL);
        self.resets_max < self.resets || controls_max < self.controls
    }

    /// The head of a frame is complete (RFC 9113, 4.1 and 6).
    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, a, b, c]);
        self.left = usize::try_from(length).unwrap_or(usize::MAX);
        self.ends_headers = false;
        match kind {
            // DATA that brings neither bytes nor the end.
            0 if length == 0 && flags & 1 == 0 => self.controls = self.controls.saturating_add(1),
            0 => {}
            // HEADERS and CONTINUATION.
            1 | 9 => {
                self.ends_headers = flags & 4 != 0;
                self.in_headers = 0 < length || !self.ends_headers;
                self.controls = self.controls.saturating_add(u64::from(kind == 9));
            }
            3 => self.resets = self.resets.saturating_add(1),
            _ => self.controls = self.controls.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![a, b, c, kind, flags, 0, 0, 0, 1];
        bytes.extend_from_slice(payload);
        bytes
    }

    fn begun() -> Frames {
        let now = Instant::now();
        let mut frames = Frames::new(3, now);
        frames.read(PREFACE, || now).unwrap();
        frames
    }

    #[tokio::test]
    async fn frames_are_found_however_the_bytes_are_cut() {
        let mut bytes = frame(4, 0, &[0; 6]);
        bytes.extend(frame(1, 0, &[7; 20]));
        bytes.extend(frame(9, 4, &[7; 300]));
        bytes.extend(frame(0, 1, &[]));
        for size in [1, 2, 5, 9, 10, 1_000] {
            let mut frames = begun();
            let mut open = Vec::new();
            for piece in bytes.chunks(size) {
                frames.read(piece, Instant::now).unwrap();
                open.push(frames.in_headers());
            }
            assert!(!frames.in_headers(), "in pieces of {size}");
            assert_eq!(frames.controls, 2, "settings and a continuation, in pieces of {size}");
            assert!(1_000 <= size || open.contains(&true), "in pieces of {size}");
        }
    }

    #[tokio::test]
    async fn headers_are_open_until_their_last_byte() {
        let mut frames = begun();
        let bytes = frame(1, 4, &[7; 20]);
        frames.read(&bytes[..28], Instant::now).unwrap();
        assert!(frames.in_headers());
        frames.read(&bytes[28..], Instant::now).unwrap();
        assert!(!frames.in_headers());
        frames.read(&frame(1, 0, &[]), Instant::now).unwrap();
        assert!(frames.in_headers(), "an empty one without its end");
        frames.read(&frame(9, 4, &[]), Instant::now).unwrap();
        assert!(!frames.in_headers());
    }

    #[tokio::test(start_paused = true)]
    async fn floods_are_told_and_old_frames_forgotten() {
        let reset = frame(3, 0, &[0; 4]);
        let mut frames = begun();
        for _ in 0..3 {
            frames.read(&reset, Instant::now).unwrap();
        }
        assert_eq!(frames.read(&reset, Instant::now), Err(Flood));
        let mut frames = begun();
        for _ in 0..3 {
            frames.read(&reset, Instant::now).unwrap();
        }
        tokio::time::advance(WINDOW).await;
        frames.read(&reset, Instant::now).unwrap();
        for kind in [2, 4, 6, 8, 9, 77] {
            let mut frames = begun();
            let ping = frame(kind, 0, &[0; 8]);
            let ends = (0..2_000).position(|_| frames.read(&ping, Instant::now).is_err());
            assert!(ends.is_some_and(|n| (1_000..1_200).contains(&n)), "kind {kind}: {ends:?}");
        }
        let mut frames = begun();
        for _ in 0..100_000 {
            frames.wrote(1_000);
            frames.read(&frame(8, 0, &[0; 4]), Instant::now).unwrap();
        }
    }
}
