//! How many bytes an LZ4 frame holds, without unpacking it.
//!
//! The decoder goes on for as long as the frame does, whatever length was announced: a frame of 64 MB may hold 16 GB. Only a look at its
//! sequences says how many. <https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md>

const MAGIC: u32 = 0x184D_2204;
/// In the frame's flags.
const BLOCK_CHECKSUMS: u8 = 0x10;
const CONTENT_SIZE: u8 = 0x08;
const CONTENT_CHECKSUM: u8 = 0x04;
const DICTIONARY: u8 = 0x01;
/// In a block's length: it is not packed.
const STORED: u32 = 0x8000_0000;
/// A length of a sequence that goes on in the bytes after it.
const GOES_ON: u8 = 15;
const MATCH_MIN: u64 = 4;

/// The bytes that come out of a frame, which must be the only one; nothing where it breaks off or is none.
pub(super) fn unpacked(frame: &[u8]) -> Option<u64> {
    let mut rest = frame;
    if u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?) != MAGIC {
        return None;
    }
    let flags = take(&mut rest, 2)?[0];
    if flags & DICTIONARY != 0 {
        return None;
    }
    take(&mut rest, if flags & CONTENT_SIZE != 0 { 9 } else { 1 })?;
    let mut bytes = 0u64;
    loop {
        let length = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
        if length == 0 {
            break;
        }
        let block = take(&mut rest, (length & !STORED) as usize)?;
        let held = if length & STORED != 0 { block.len() as u64 } else { of_block(block)? };
        bytes = bytes.checked_add(held)?;
        if flags & BLOCK_CHECKSUMS != 0 {
            take(&mut rest, 4)?;
        }
    }
    if flags & CONTENT_CHECKSUM != 0 {
        take(&mut rest, 4)?;
    }
    rest.is_empty().then_some(bytes)
}

/// The bytes that come out of a packed block: literals and matches in turn, literals last.
fn of_block(mut rest: &[u8]) -> Option<u64> {
    let mut bytes = 0u64;
    loop {
        let token = take(&mut rest, 1)?[0];
        let literals = length(token >> 4, &mut rest)?;
        take(&mut rest, usize::try_from(literals).ok()?)?;
        bytes = bytes.checked_add(literals)?;
        if rest.is_empty() {
            return Some(bytes);
        }
        take(&mut rest, 2)?;
        bytes = bytes.checked_add(length(token & 15, &mut rest)?.checked_add(MATCH_MIN)?)?;
    }
}

fn length(start: u8, rest: &mut &[u8]) -> Option<u64> {
    let mut length = u64::from(start);
    if start == GOES_ON {
        loop {
            let more = take(rest, 1)?[0];
            length = length.checked_add(u64::from(more))?;
            if more != u8::MAX {
                break;
            }
        }
    }
    Some(length)
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(bytes)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `b"ab" * 500` as the lz4 command packs it, in one block without checksums: a literal part, a match that overlaps itself, five literals.
    fn frame() -> Vec<u8> {
        let mut block = vec![0x2F, b'a', b'b', 2, 0, 255, 255, 255];
        // 1000 = 2 literals + match + 5 literals: 993 = 4 + 15 + 3 * 255 + 209.
        block.extend([209, 0x50, b'b', b'a', b'b', b'a', b'b']);
        let mut frame = vec![0x04, 0x22, 0x4D, 0x18, 0x40, 0x40, 0xC0];
        frame.extend((block.len() as u32).to_le_bytes());
        frame.extend(block);
        frame.extend([0; 4]);
        frame
    }

    #[test]
    fn a_frame_says_what_comes_out_of_it() {
        assert_eq!(unpacked(&frame()), Some(1000));
    }

    #[test]
    fn broken_frames_say_nothing() {
        let whole = frame();
        for end in 0..whole.len() {
            assert_eq!(unpacked(&whole[..end]), None, "cut at {end}");
        }
        assert_eq!(unpacked(&[whole.clone(), whole].concat()), None, "two frames");
    }
}
