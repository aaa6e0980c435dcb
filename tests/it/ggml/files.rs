//! GGUF files: what one writes, the other reads alike.

use std::fs;

use gristmill::Error;
use gristmill::ggml::{self, File, FileBuilder};
use gristmill::gguf::{Gguf, Metadata, Strings, Value, Writer};
use gristmill_kernels::quant::GgmlType;

use super::{REMOVED, Random};
use crate::goldens;

/// Ours and ggml's description of the same header, which must agree in everything that both say.
fn compare(bytes: &[u8], what: &str) -> Gguf {
    let ours = Gguf::parse(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    let theirs = File::from_bytes(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(ours.version, theirs.version(), "{what}");
    assert_eq!(ours.alignment, theirs.alignment() as u64, "{what}");
    if !ours.tensors.is_empty() {
        assert_eq!(ours.data_start, theirs.data_offset() as u64, "{what}");
    }
    let metadata = theirs.metadata();
    for ((our_key, our_value), (their_key, their_value)) in ours.metadata.iter().zip(metadata.iter()) {
        assert_eq!((our_key, our_value), (their_key, their_value), "{what}");
    }
    assert_eq!(ours.metadata.len(), metadata.len(), "{what}");
    let tensors = theirs.tensors();
    for (ours, theirs) in ours.tensors.iter().zip(&tensors) {
        assert_eq!(ours.name, theirs.name, "{what}");
        assert_eq!(ours.ty as u32, theirs.type_id, "{what}: {}", ours.name);
        assert_eq!(ours.ne, theirs.ne, "{what}: {}", ours.name);
        assert_eq!(ours.range, theirs.range, "{what}: {}", ours.name);
    }
    assert_eq!(ours.tensors.len(), tensors.len(), "{what}");
    ours
}

/// A value of every kind that both can hold.
fn values() -> Vec<(&'static str, Value)> {
    vec![
        ("general.architecture", "llama".into()),
        ("a.u8", u8::MAX.into()),
        ("a.i8", i8::MIN.into()),
        ("a.u16", u16::MAX.into()),
        ("a.i16", i16::MIN.into()),
        ("a.u32", u32::MAX.into()),
        ("a.i32", i32::MIN.into()),
        ("a.f32", (-0.0_f32).into()),
        ("a.bool", true.into()),
        ("a.u64", u64::MAX.into()),
        ("a.i64", i64::MIN.into()),
        ("a.f64", 1e300_f64.into()),
        ("a.string", "Grüße, 世界 🌍".into()),
        ("a.empty", "".into()),
        ("l.u8", vec![0_u8, 255].into()),
        ("l.i8", vec![-1_i8].into()),
        ("l.u16", vec![1_u16, 2, 3].into()),
        ("l.i16", vec![-1_i16, 2].into()),
        ("l.u32", vec![7_u32; 100].into()),
        ("l.i32", vec![i32::MIN, -1, 0].into()),
        ("l.f32", vec![f32::INFINITY, 1.5].into()),
        ("l.bool", vec![true, false, true].into()),
        ("l.u64", vec![u64::MAX].into()),
        ("l.i64", vec![i64::MIN].into()),
        ("l.f64", vec![0.1_f64].into()),
        ("l.string", Strings::from_iter(["a", "", "ünï"]).into()),
    ]
}

/// A tensor of each type that ggml knows, of up to four dimensions.
fn tensors(random: &mut Random) -> Vec<(String, GgmlType, Vec<usize>, Vec<u8>)> {
    let known = GgmlType::ALL.iter().copied().filter(|ty| !REMOVED.contains(ty));
    known
        .enumerate()
        .map(|(i, ty)| {
            let shape = [2 * ty.block_len(), 3, 1 + i % 2, 2][..1 + i % 4].to_vec();
            let bytes = ty.row_bytes(shape.iter().product()).unwrap();
            (format!("blk.{i}.{ty}"), ty, shape, random.bytes(bytes))
        })
        .collect()
}

#[test]
fn a_file_that_ggml_wrote_is_read_by_ours() {
    let folder = std::env::temp_dir().join(format!("gristmill-ggml-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let tensors = tensors(&mut Random(21));
    let mut file = FileBuilder::new().unwrap();
    let mut expected = Metadata::new();
    for (key, value) in values().into_iter().chain([("general.alignment", 32_u32.into())]) {
        file.set(key, &value).unwrap();
        expected.set(key, value);
    }
    for (name, ty, shape, data) in &tensors {
        file.tensor(name, *ty, shape, data).unwrap();
    }
    let path = folder.join("theirs.gguf");
    file.write(&path).unwrap();

    let bytes = fs::read(&path).unwrap();
    let ours = compare(&bytes, "written by ggml");
    assert_eq!(ours.metadata, expected);
    assert_eq!(ours.tensors.len(), tensors.len());
    for (found, (name, ty, shape, data)) in ours.tensors.iter().zip(&tensors) {
        assert_eq!((&*found.name, found.ty), (&**name, *ty));
        // A file that ggml writes leaves out trailing sizes of one.
        assert_eq!(found.elements(), shape.iter().product::<usize>());
        assert_eq!(&bytes[found.range.start as usize..found.range.end as usize], data, "{name}");
    }
    assert_eq!(File::open(&path).unwrap().metadata(), expected);
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_file_that_ours_wrote_is_read_by_ggml() {
    let tensors = tensors(&mut Random(22));
    for (alignment, version) in [(None, 3), (Some(64_u32), 3), (Some(256), 2)] {
        let mut metadata = Metadata::new();
        values().into_iter().for_each(|(key, value)| {
            metadata.set(key, value);
        });
        if let Some(alignment) = alignment {
            metadata.set("general.alignment", alignment);
        }
        let mut writer = Writer::new(metadata.clone()).unwrap().version(version).unwrap();
        for (name, ty, shape, _) in &tensors {
            writer.tensor(name, shape, *ty).unwrap();
        }
        let mut data = writer.start(Vec::new()).unwrap();
        for (name, _, _, bytes) in &tensors {
            // In two pieces, as a quantizer writes.
            let (first, second) = bytes.split_at(bytes.len() / 3);
            data.write(name, first).unwrap();
            data.write(name, second).unwrap();
        }
        let bytes = data.finish().unwrap();

        let what = format!("written by ours, version {version}, alignment {alignment:?}");
        let ours = compare(&bytes, &what);
        let theirs = File::from_bytes(&bytes).unwrap();
        assert_eq!(theirs.metadata(), metadata, "{what}");
        assert_eq!((ours.version, ours.alignment), (version, u64::from(alignment.unwrap_or(32))));
        let described = theirs.tensors();
        assert_eq!(described.len(), tensors.len());
        for (found, (name, ty, shape, data)) in described.iter().zip(&tensors) {
            assert_eq!((&*found.name, found.type_id), (&**name, *ty as u32), "{what}");
            assert_eq!(found.ne[..shape.len()], shape[..], "{what}: {name}");
            assert_eq!(&bytes[found.range.start as usize..found.range.end as usize], data, "{what}: {name}");
        }
    }
}

#[test]
fn what_ggml_asserts_of_a_file_comes_back_as_an_error() {
    let mut file = FileBuilder::new().unwrap();
    assert!(file.set("general.alignment", &64_u32.into()).is_err());
    let error = file.set("", &1_u32.into()).unwrap_err();
    assert!(error.to_string().contains("GGML_ASSERT(!key.empty()) failed"), "{error}");
    file.tensor("twice", GgmlType::F32, &[1], &[0; 4]).unwrap();
    let error = file.tensor("twice", GgmlType::F32, &[1], &[0; 4]).unwrap_err();
    assert!(error.to_string().contains("duplicate tensor name: twice"), "{error}");
    assert!(matches!(
        file.tensor("x", GgmlType::Q4_0, &[31], &[0; 18]),
        Err(Error::GgmlSize { found: 31, .. })
    ));
    assert!(matches!(file.tensor("x", GgmlType::Q4_2, &[16], &[0; 10]), Err(Error::GgmlUnsupported { .. })));
}

#[test]
fn a_file_cut_anywhere_in_its_header_is_refused_by_both() {
    let folder = std::env::temp_dir().join(format!("gristmill-ggml-cut-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let mut file = FileBuilder::new().unwrap();
    for (key, value) in values() {
        file.set(key, &value).unwrap();
    }
    file.tensor("t", GgmlType::F32, &[4], &[0; 16]).unwrap();
    file.write(&folder.join("whole.gguf")).unwrap();
    let bytes = fs::read(folder.join("whole.gguf")).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let header = Gguf::parse(&bytes).unwrap().data_start as usize;
    for end in 0..header - 32 {
        assert!(Gguf::parse(&bytes[..end]).is_err(), "ours took the first {end} bytes");
        assert!(File::from_bytes(&bytes[..end]).is_err(), "ggml took the first {end} bytes");
    }
}

#[test]
fn the_golden_models_look_alike_to_both() {
    let (Some(real), Some(parity), Some(vocabularies)) =
        (goldens::folder("models"), goldens::folder("parity"), goldens::folder("tokenizers"))
    else {
        return;
    };
    let mut files = 0;
    for folder in [real, parity.join("open/models"), parity.join("open/quant"), vocabularies] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "gguf") {
                compare(&fs::read(&path).unwrap(), &path.display().to_string());
                files += 1;
            }
        }
    }
    println!("{files} files look alike to ours and to ggml {}", ggml::version());
    assert!(files > 20, "{files}");
}
