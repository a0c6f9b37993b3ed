//! Private scalars of ECDSA keys that are shorter than their curve. OpenSSH writes them as numbers, without leading zeros, so that
//! about one key of 256 has fewer bytes than its curve; the crate that reads keys takes whole ones alone.
//!
//! The format is that of OpenSSH's `PROTOCOL.key`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// The private part without a cipher is a multiple of so many bytes.
const BLOCK_BYTES: usize = 8;
/// How many base64 characters a line has at most, as ssh-keygen writes it.
const LINE_CHARS: usize = 70;

/// Bytes that are read from their beginning.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A string: four bytes of length, and so many bytes.
    fn string(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
        self.take(usize::try_from(length).ok()?)
    }
}

fn put(out: &mut Vec<u8>, string: &[u8]) -> Option<()> {
    out.extend(u32::try_from(string.len()).ok()?.to_be_bytes());
    out.extend(string);
    Some(())
}

/// The same key with its scalar as long as its curve; none where it isn't an unencrypted ECDSA key with a short one.
pub fn made_whole(text: &str) -> Option<Zeroizing<String>> {
    let body = text.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    let body: Zeroizing<String> = Zeroizing::new(body.split_whitespace().collect());
    let bytes = Zeroizing::new(STANDARD.decode(&*body).ok()?);
    let mut reader = Reader(&bytes);
    let before = {
        let magic = reader.take(MAGIC.len()).filter(|magic| *magic == MAGIC)?.len();
        // Cipher, its derivation and that one's options, as for none; then the number of keys, and the one public key.
        let none = [reader.string()?, reader.string()?, reader.string()?] == [b"none", b"none", &b""[..]];
        let one = reader.take(4)? == 1_u32.to_be_bytes();
        reader.string().filter(|_| magic > 0 && none && one)?;
        bytes.len() - reader.0.len()
    };
    let mut private = Reader(reader.string()?);
    let mut whole = Zeroizing::new(Vec::with_capacity(bytes.len() + BLOCK_BYTES));
    whole.extend(private.take(8)?);
    put(&mut whole, private.string().filter(|kind| kind.starts_with(b"ecdsa-sha2-"))?)?;
    put(&mut whole, private.string()?)?;
    let (public, scalar) = (private.string()?, private.string()?);
    put(&mut whole, public)?;
    // An uncompressed point: one byte, and two numbers as long as the curve.
    let length = public.len().checked_sub(1)? / 2;
    let missing = length.checked_sub(scalar.len()).filter(|missing| *missing > 0)?;
    let padded = Zeroizing::new([vec![0; missing], scalar.to_vec()].concat());
    put(&mut whole, &padded)?;
    put(&mut whole, private.string()?)?;
    let padding = (1_u8..).take(whole.len().next_multiple_of(BLOCK_BYTES) - whole.len());
    whole.extend(padding);
    let mut out = Zeroizing::new(bytes.get(..before)?.to_vec());
    put(&mut out, &whole)?;
    let encoded = Zeroizing::new(STANDARD.encode(&*out));
    let mut text = Zeroizing::new(String::with_capacity(encoded.len() * 2));
    text.push_str(BEGIN);
    for (index, character) in encoded.chars().enumerate() {
        if index % LINE_CHARS == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text.push('\n');
    text.push_str(END);
    text.push('\n');
    Some(text)
}
