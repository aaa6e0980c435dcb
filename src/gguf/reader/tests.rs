//! One test per rejection, and a few thousand damaged files.

use super::*;

/// Builds the bytes of a header by hand, right or wrong.
#[derive(Clone, Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn new(version: u32, tensors: u64, entries: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(tensors).u64(entries)
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn string(self, bytes: &[u8]) -> Self {
        self.u64(bytes.len() as u64).bytes(bytes)
    }

    fn key(self, key: &str, ty: ValueType) -> Self {
        self.string(key.as_bytes()).u32(ty.id())
    }

    fn tensor(self, name: &str, dims: &[u64], ty: u32, offset: u64) -> Self {
        let raw = self.string(name.as_bytes()).u32(dims.len() as u32);
        dims.iter().fold(raw, |raw, &dim| raw.u64(dim)).u32(ty).u64(offset)
    }

    /// Pads to the alignment and adds `data` bytes of weights.
    fn data(mut self, data: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + data, 7);
        self
    }

    fn error(self) -> Error {
        Gguf::parse(&self.0).expect_err("a rejection")
    }
}

const F32: u32 = GgmlType::F32 as u32;

/// Asserts what the error is, and that its message names all the words.
macro_rules! rejects {
    ($raw:expr, $pattern:pat $(if $guard:expr)?, $($word:literal),*) => {{
        let error = $raw.error();
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
        let message = error.to_string();
        $(assert!(message.contains($word), "`{}` is not in: {message}", $word);)*
    }};
}

/// A file with every part that a file can have.
fn valid() -> Raw {
    Raw::new(3, 2, 5)
        .key("general.architecture", ValueType::String)
        .string(b"toy")
        .key("general.alignment", ValueType::U32)
        .u32(32)
        .key("tokens", ValueType::Array)
        .u32(ValueType::String.id())
        .u64(2)
        .string(b"a")
        .string(b"bc")
        .key("nested", ValueType::Array)
        .u32(ValueType::Array.id())
        .u64(2)
        .u32(ValueType::U8.id())
        .u64(3)
        .bytes(&[1, 2, 3])
        .u32(ValueType::F64.id())
        .u64(0)
        .key("flag", ValueType::Bool)
        .bytes(&[1])
        .tensor("a", &[2, 3], F32, 0)
        .tensor("b", &[32], GgmlType::Q4_0 as u32, 32)
        .data(32 + 18)
}

#[test]
fn the_file_that_the_rejections_start_from_is_valid() {
    let gguf = Gguf::parse(&valid().0).unwrap();
    assert_eq!(gguf.metadata.len(), 5);
    assert_eq!(gguf.metadata.get("nested").unwrap().to_string(), "[[1, 2, 3], []]");
    let b = gguf.tensor("b").unwrap();
    assert_eq!((b.range.end - b.range.start, b.range.end), (18, valid().0.len() as u64));
    assert_eq!(gguf.file_len(), valid().0.len() as u64);
    assert_eq!(b.to_string(), "b q4_0 [32]");
}

#[test]
fn a_file_of_another_format_is_named() {
    rejects!(Raw(vec![]), Error::NotGguf { .. }, "GGUF");
    rejects!(Raw(b"GGU".to_vec()), Error::NotGguf { .. }, "\"GGU\"");
    rejects!(Raw(b"PK\x03\x04....".to_vec()), Error::NotGguf { .. }, "PK\\x03\\x04", "PyTorch");
    rejects!(Raw(b"\x10\0\0\0\0\0\0\0{\"a\"".to_vec()), Error::NotGguf { .. }, "safetensors");
    rejects!(Raw(b"lmgg\x01\0\0\0".to_vec()), Error::NotGguf { .. }, "GGML");
    rejects!(
        Raw(b"version https://git-lfs.github.com/spec/v1".to_vec()),
        Error::NotGguf { .. },
        "git lfs pull"
    );
    rejects!(Raw(b"<!DOCTYPE html>".to_vec()), Error::NotGguf { .. }, "web page");
}

#[test]
fn an_unknown_version_is_refused() {
    for version in [0, 1, 4, 0x0100_0000, 0x0004_0000, u32::MAX] {
        rejects!(Raw::new(version, 0, 0), Error::GgufVersion { .. }, "2 and 3");
    }
}

#[test]
fn counts_that_the_file_cannot_hold_are_refused() {
    for (tensors, entries) in [(u64::MAX, 0), (0, u64::MAX), (1, 0), (0, 1), (1 << 60, 1 << 60)] {
        rejects!(Raw::new(3, tensors, entries), Error::GgufTruncated { at: 24, left: 0, .. }, "counts");
    }
}

#[test]
fn a_key_must_be_utf8_and_not_empty() {
    let filler = [0; 16];
    rejects!(
        Raw::new(3, 0, 1).string(b"\xff").u32(0).bytes(&filler),
        Error::MetadataKey { index: 0, .. },
        "UTF-8"
    );
    rejects!(
        Raw::new(3, 0, 1).string(b"").u32(0).bytes(&filler),
        Error::MetadataKey { index: 0, .. },
        "empty"
    );
}

#[test]
fn a_string_longer_than_the_file_is_refused() {
    for length in [17, 1 << 40, u64::MAX] {
        rejects!(
            Raw::new(3, 0, 1).u64(length).bytes(&[b'k'; 16]),
            Error::GgufTruncated { at: 32, left: 16, needed, .. } if *needed == length,
            "key number 0"
        );
        rejects!(
            Raw::new(3, 0, 1).key("k", ValueType::String).u64(length).bytes(&[0; 16]),
            Error::GgufTruncated { left: 16, .. },
            "`k`"
        );
    }
}

#[test]
fn a_key_may_stand_only_once() {
    let raw = Raw::new(3, 0, 2).key("k", ValueType::U8).bytes(&[1]).key("k", ValueType::U32).u32(1);
    rejects!(raw, Error::MetadataDuplicate { key } if key == "k", "`k`", "twice");
}

#[test]
fn an_unknown_kind_of_value_is_refused() {
    for id in [13, u32::MAX] {
        let raw = Raw::new(3, 0, 1).string(b"k").u32(id).u64(0);
        rejects!(raw, Error::MetadataUnknownType { key, found } if key == "k" && *found == id, "`k`");
        let raw = Raw::new(3, 0, 1).key("k", ValueType::Array).u32(id).u64(0);
        rejects!(raw, Error::MetadataUnknownType { found, .. } if *found == id, "`k`");
    }
}

#[test]
fn a_boolean_is_0_or_1() {
    let raw = Raw::new(3, 0, 1).key("flag", ValueType::Bool).bytes(&[2]);
    rejects!(raw, Error::MetadataBool { found: 2, .. }, "`flag`", "2");
    let raw =
        Raw::new(3, 0, 1).key("flags", ValueType::Array).u32(ValueType::Bool.id()).u64(2).bytes(&[1, 3]);
    rejects!(raw, Error::MetadataBool { found: 3, .. }, "`flags`");
}

#[test]
fn an_array_longer_than_the_file_is_refused() {
    for ty in ValueType::ALL {
        for count in [1_000, 1 << 61, u64::MAX] {
            let raw = Raw::new(3, 0, 1).key("k", ValueType::Array).u32(ty.id()).u64(count).bytes(&[0; 100]);
            rejects!(raw, Error::GgufTruncated { left: 100, .. }, "`k`");
        }
    }
}

#[test]
fn arrays_nest_only_so_deep() {
    let nested = |levels| {
        let raw = Raw::new(3, 0, 1).key("k", ValueType::Array);
        (1..levels).fold(raw, |raw, _| raw.u32(ValueType::Array.id()).u64(1)).u32(ValueType::U8.id()).u64(0)
    };
    Gguf::parse(&nested(MAX_NESTING).0).unwrap();
    rejects!(nested(MAX_NESTING + 1), Error::MetadataNesting { key } if key == "k", "`k`", "4");
    rejects!(nested(1_000_000), Error::MetadataNesting { .. }, "`k`");
}

#[test]
fn the_alignment_is_a_u32_and_a_power_of_two() {
    for alignment in [0, 3, 48, u32::MAX] {
        let raw = Raw::new(3, 0, 1).key("general.alignment", ValueType::U32).u32(alignment);
        rejects!(raw, Error::GgufAlignment { found } if *found == u64::from(alignment), "power of two");
    }
    let raw = Raw::new(3, 0, 1).key("general.alignment", ValueType::U64).u64(32);
    rejects!(raw, Error::MetadataType { found, .. } if found == "u64 32", "general.alignment");
}

#[test]
fn a_tensor_is_named_in_utf8() {
    let raw = Raw::new(3, 1, 0).string(b"\xc3").u32(0).u32(F32).u64(0);
    rejects!(raw, Error::TensorName { index: 0, .. }, "UTF-8");
}

#[test]
fn a_tensor_may_stand_only_once() {
    let raw = Raw::new(3, 2, 0).tensor("a", &[1], F32, 0).tensor("a", &[1], F32, 32).data(36);
    rejects!(raw, Error::TensorDuplicate { tensor } if tensor == "a", "`a`");
}

#[test]
fn a_tensor_has_at_most_four_dimensions() {
    let raw = Raw::new(3, 1, 0).tensor("a", &[1; 5], F32, 0).data(4);
    rejects!(raw, Error::TensorDims { found: 5, .. }, "`a`", "5", "4");
    let raw = Raw::new(3, 1, 0).string(b"a").u32(u32::MAX).bytes(&[1; 64]);
    rejects!(raw, Error::TensorDims { .. }, "`a`");
}

#[test]
fn no_dimension_is_zero() {
    for dims in [&[0][..], &[32, 0], &[1, 1, 0, 1]] {
        let raw = Raw::new(3, 1, 0).tensor("a", dims, F32, 0).data(4);
        rejects!(raw, Error::TensorZeroDim { tensor, .. } if tensor == "a", "`a`");
    }
}

#[test]
fn a_shape_whose_size_overflows_is_refused() {
    for (dims, ty) in [
        (&[u64::MAX][..], F32),
        (&[1 << 63], GgmlType::I8 as u32),
        (&[1 << 62], F32),
        (&[1 << 32, 1 << 32], F32),
        (&[1 << 16, 1 << 16, 1 << 16, 1 << 16], F32),
        (&[3, u64::MAX / 2, 2, 1], F32),
        // As bytes this one would fit, as a number of weights it does not.
        (&[1 << 32, 1 << 32], GgmlType::IQ1_S as u32),
    ] {
        let raw = Raw::new(3, 1, 0).tensor("a", dims, ty, 0).data(4);
        rejects!(raw, Error::TensorSize { tensor, .. } if tensor == "a", "`a`");
    }
}

#[test]
fn an_unknown_type_of_tensor_is_refused() {
    for id in [43, 255, u32::MAX] {
        let raw = Raw::new(3, 1, 0).tensor("a", &[32], id, 0).data(128);
        rejects!(raw, Error::TensorUnknownType { found, .. } if *found == id, "`a`", "42");
    }
}

#[test]
fn a_row_is_a_whole_number_of_blocks() {
    let raw = Raw::new(3, 1, 0).tensor("a", &[33, 32], GgmlType::Q4_0 as u32, 0).data(1024);
    rejects!(raw, Error::TensorRow { found: 33, .. }, "`a`", "33", "q4_0", "32");
}

#[test]
fn an_offset_is_a_multiple_of_the_alignment() {
    let raw = Raw::new(3, 1, 0).tensor("a", &[1], F32, 4).data(64);
    rejects!(raw, Error::TensorUnaligned { found: 4, alignment: 32, .. }, "`a`", "4", "32");
}

#[test]
fn an_offset_whose_end_overflows_is_refused() {
    for offset in [u64::MAX - 31, u64::MAX - 63, u64::MAX - 127] {
        let raw = Raw::new(3, 1, 0).tensor("a", &[16], F32, offset).data(64);
        rejects!(raw, Error::TensorOffset { found, .. } if *found == offset, "`a`");
    }
}

#[test]
fn a_tensor_ends_inside_the_file() {
    let raw = Raw::new(3, 1, 0).tensor("a", &[16], F32, 0).data(63);
    let header = Gguf::parse_header(&raw.0).unwrap();
    assert_eq!(header.file_len(), raw.0.len() as u64 + 1);
    rejects!(raw, Error::TensorOutside { end, file_len, .. } if *end == file_len + 1, "`a`", "cut short");
    let raw = Raw::new(3, 1, 0).tensor("a", &[16], F32, 1 << 40).data(64);
    rejects!(raw, Error::TensorOutside { .. }, "`a`");
}

#[test]
fn tensors_share_no_bytes() {
    let raw = Raw::new(3, 2, 0).tensor("late", &[16], F32, 32).tensor("early", &[16], F32, 0).data(96);
    rejects!(raw, Error::TensorOverlap { tensor, other } if tensor == "late" && other == "early", "`early`");
    let raw = Raw::new(3, 2, 0).tensor("a", &[16], F32, 0).tensor("b", &[16], F32, 0).data(96);
    rejects!(raw, Error::TensorOverlap { .. }, "`a`", "`b`");
}

#[test]
fn tensors_may_lie_in_any_order_with_gaps() {
    let raw = Raw::new(3, 2, 0).tensor("b", &[8], F32, 96).tensor("a", &[8], F32, 32).data(128);
    let gguf = Gguf::parse(&raw.0).unwrap();
    assert_eq!(gguf.tensors.iter().map(|t| t.range.start - gguf.data_start).collect::<Vec<_>>(), [96, 32]);
}

#[test]
fn a_file_cut_at_any_byte_is_an_error() {
    let whole = valid().0;
    for len in 0..whole.len() {
        let error = Gguf::parse(&whole[..len]).unwrap_err();
        match (len, &error) {
            (0..4, Error::NotGguf { .. }) => {}
            (_, Error::GgufTruncated { at, needed, left, .. }) => {
                assert_eq!(at + left, len as u64);
                assert!(needed > left && at + needed <= whole.len() as u64, "{error:?}");
            }
            (_, Error::TensorOutside { file_len, .. }) => assert_eq!(*file_len, len as u64),
            _ => panic!("cut at {len}: {error:?}"),
        }
    }
}

#[test]
fn a_damaged_file_is_an_error_or_a_description_that_stays_inside() {
    let whole = valid().0;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    };
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut file = whole.clone();
        for _ in 0..1 + random() % 4 {
            let at = (random() as usize) % file.len();
            file[at] = match random() % 4 {
                0 => file[at] ^ (1 << (random() % 8)),
                1 => 0xff,
                2 => 0,
                _ => random() as u8,
            };
        }
        match Gguf::parse(&file) {
            Ok(gguf) => {
                accepted += 1;
                for tensor in &gguf.tensors {
                    assert!(tensor.range.start >= gguf.data_start && tensor.range.end <= file.len() as u64);
                    let bytes = tensor.ty.row_bytes(tensor.row_len()).unwrap() * tensor.rows();
                    assert_eq!(tensor.bytes(), bytes as u64);
                }
            }
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    assert!(accepted > 1_000 && refused > 1_000, "{accepted} accepted, {refused} refused");
}
