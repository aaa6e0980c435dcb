//! Files made smaller: the rules and the bytes of llama-quantize, and what happens to files on the way.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use gristmill::gguf::{Gguf, Metadata, Writer};
use gristmill::model::file::ModelFile;
use gristmill::quantize::{Imatrix, Mix, Options, Splitting, plan, quantize};
use gristmill::{Error, GgmlType};
use serde_json::Value as Json;

/// A folder of its own, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gristmill-quantize-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// What llama-quantize does; `make.py` beside it made it.
fn expected() -> Json {
    serde_json::from_slice(&fs::read(in_repository("tests/data/quantize/expected.json")).unwrap()).unwrap()
}

/// The importance that `make.py` gave to llama-quantize.
fn importance(tensors: impl Iterator<Item = (String, Vec<usize>)>) -> Imatrix {
    let of = |name: &str, columns: usize| {
        (0..columns).map(|j| ((j * 37 + name.len()) % 101 + 1) as f32 / 64.0).collect::<Vec<_>>()
    };
    let entries = tensors
        .filter(|(_, shape)| shape.len() > 1)
        .map(|(name, shape)| {
            let values = of(&name, shape[0] * shape.get(2).copied().unwrap_or(1));
            (name, values)
        })
        .collect();
    Imatrix { entries, ..Imatrix::default() }
}

/// The name of an entry of `expected.json` taken apart: model, mix, and whether there was an importance matrix.
fn entry(key: &str) -> (&str, Mix, bool) {
    let (model, mix) = key.split_once(' ').unwrap();
    (model, Mix::named(mix.trim_end_matches('+')).unwrap(), mix.ends_with('+'))
}

/// A file with the model that `make.py` describes, with zeros for weights.
fn made_up(model: &Json) -> Vec<u8> {
    let architecture = model["architecture"].as_str().unwrap();
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", architecture);
    for (key, from) in [
        ("block_count", "layers"),
        ("attention.head_count", "heads"),
        ("attention.head_count_kv", "kv_heads"),
        ("expert_count", "experts"),
    ] {
        metadata.set(&format!("{architecture}.{key}"), model[from].as_u64().unwrap() as u32);
    }
    let mut writer = Writer::new(metadata).unwrap();
    let mut sizes = Vec::new();
    for tensor in model["tensors"].as_array().unwrap() {
        let name = tensor[0].as_str().unwrap();
        let shape: Vec<usize> =
            tensor[1].as_array().unwrap().iter().map(|size| size.as_u64().unwrap() as usize).collect();
        let ty = if shape.len() > 1 { GgmlType::F16 } else { GgmlType::F32 };
        writer.tensor(name, &shape, ty).unwrap();
        sizes.push((name, shape.iter().product::<usize>() * ty.block_bytes()));
    }
    let mut data = writer.start(Vec::new()).unwrap();
    for (name, bytes) in sizes {
        data.write(name, &vec![0; bytes]).unwrap();
    }
    data.finish().unwrap()
}

fn shapes(file: &ModelFile) -> impl Iterator<Item = (String, Vec<usize>)> {
    file.tensors().map(|tensor| (tensor.info.name.clone(), tensor.info.shape().to_vec()))
}

#[test]
fn each_tensor_gets_the_type_that_llama_quantize_gives_it() {
    let expected = expected();
    let letters: Vec<&str> =
        expected["letters"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let (mut compared, mut wrong) = (0, Vec::new());
    for (key, types) in expected["types"].as_object().unwrap() {
        let (name, mix, with_imatrix) = entry(key);
        let file = ModelFile::from_bytes(made_up(&expected["models"][name])).unwrap();
        let mut options = Options::new(mix);
        if with_imatrix {
            options = options.imatrix(importance(shapes(&file)));
        }
        let found = plan(&file, &options);
        let Some(types) = types.as_str() else {
            // llama-quantize refused.
            if found.is_ok_and(|plan| plan.unweighed.is_none()) {
                wrong.push(format!("{key}: expected an error, found a plan"));
            }
            continue;
        };
        let found = found.unwrap_or_else(|error| panic!("{key}: {error}"));
        for (planned, letter) in found.tensors.iter().zip(types.bytes()) {
            let expected = letters[usize::from(letter - b'A')];
            compared += 1;
            if !planned.ty.name().eq_ignore_ascii_case(expected) {
                wrong.push(format!(
                    "{key}: {}: expected {expected}, found {}",
                    planned.tensor.name, planned.ty
                ));
            }
        }
        assert_eq!(found.tensors.len(), types.len(), "{key}");
    }
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
    assert!(compared > 20_000, "{compared}");
}

fn crc(crc: u32, bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!crc, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

/// Over each tensor's name, type and bytes, padding and all.
fn of_tensors(bytes: &[u8]) -> u32 {
    Gguf::parse(bytes).unwrap().tensors.iter().fold(0, |sum, tensor| {
        let padded = tensor.range.start as usize..tensor.range.end.next_multiple_of(32) as usize;
        let sum = crc(sum, tensor.name.as_bytes());
        let sum = crc(sum, tensor.ty.name().to_uppercase().as_bytes());
        crc(sum, &bytes[padded])
    })
}

#[test]
fn whole_files_have_the_tensors_of_llama_quantize_byte_for_byte() {
    let expected = expected();
    let folder = Folder::new("whole");
    let (mut compared, mut wrong) = (0, Vec::new());
    for (key, checksum) in expected["checksums"].as_object().unwrap() {
        let (model, mix, with_imatrix) = entry(key);
        let input = in_repository(model);
        let mut options = Options::new(mix);
        if with_imatrix {
            options = options.imatrix(importance(shapes(&ModelFile::open(&input).unwrap())));
        }
        let output = folder.file("out.gguf");
        if let Err(error) = quantize(&input, &output, &options, |_| ControlFlow::Continue(())) {
            wrong.push(format!("{key}: {error}"));
            continue;
        }
        let bytes = fs::read(&output).unwrap();
        let found = of_tensors(&bytes);
        compared += 1;
        if u64::from(found) != checksum.as_u64().unwrap() {
            wrong.push(format!("{key}: other bytes"));
        }
    }
    assert!(wrong.is_empty(), "{} of {compared}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(compared > 100, "{compared}");
}

/// A run of `altered`: the mix and the options that its flags are, and whether there was an importance matrix.
fn altered(how: &str) -> (Options, bool) {
    let mut words = how.split(' ');
    let mix = words.next().unwrap();
    let mut options = Options::new(Mix::named(mix.trim_end_matches('+')).unwrap());
    while let (Some(flag), Some(value)) = (words.next(), words.next()) {
        options = match (flag, value.split_once('=')) {
            ("--prune-layers", _) => options.prune_layers(value.split(',').map(|n| n.parse().unwrap())),
            ("--override-kv", Some((key, typed))) => {
                let (ty, value) = typed.split_once(':').unwrap();
                match ty {
                    "int" => options.metadata(key, value.parse::<i64>().unwrap().unsigned_abs() as u32),
                    "float" => options.metadata(key, value.parse::<f32>().unwrap()),
                    "bool" => options.metadata(key, value == "true"),
                    _ => options.metadata(key, value),
                }
            }
            other => panic!("{other:?}"),
        };
    }
    (options, mix.ends_with('+'))
}

#[test]
fn layers_left_out_and_metadata_changed_give_llama_quantizes_files() {
    let folder = Folder::new("altered");
    for (key, checksum) in expected()["altered"].as_object().unwrap() {
        let (model, how) = key.split_once(' ').unwrap();
        let (input, output) = (in_repository(model), folder.file("out.gguf"));
        let (mut options, with_imatrix) = altered(how);
        if with_imatrix {
            options = options.imatrix(importance(shapes(&ModelFile::open(&input).unwrap())));
        }
        quantize(&input, &output, &options, |_| ControlFlow::Continue(())).unwrap();
        let bytes = fs::read(&output).unwrap();
        let found = if with_imatrix { of_tensors(&bytes) } else { crc(0, &bytes) };
        assert_eq!(u64::from(found), checksum.as_u64().unwrap(), "{key}");
    }
}

#[test]
fn what_is_told_of_each_layer_closes_up_with_the_layers() {
    let folder = Folder::new("pruned");
    // Its keys and values have heads in some layers only.
    let (input, output) = (in_repository("tests/data/architectures/lfm2.gguf"), folder.file("out.gguf"));
    let heads = |path: &Path| {
        let file = ModelFile::open(path).unwrap();
        file.metadata().u32s("lfm2.attention.head_count_kv").unwrap().unwrap().into_owned()
    };
    let before = heads(&input);
    let options = Options::new(Mix::named("COPY").unwrap()).prune_layers([1]);
    quantize(&input, &output, &options, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(heads(&output), [&before[..1], &before[2..]].concat());
    let model = gristmill::Model::open(&output).unwrap();
    let mut stepper = model.stepper(gristmill::generate::StepperOptions::default()).unwrap();
    stepper.feed(&[1, 2, 3]).unwrap();
    assert!(stepper.logits().iter().all(|logit| logit.is_finite()));
}

const SMALL: &str = "tests/data/models/qwen3.f16.gguf";

fn q8_0() -> Options {
    Options::new(Mix::named("Q8_0").unwrap())
}

fn tensors(file: &ModelFile) -> BTreeMap<String, (GgmlType, Vec<u8>)> {
    file.tensors().map(|tensor| (tensor.info.name.clone(), (tensor.info.ty, tensor.bytes.to_vec()))).collect()
}

#[test]
fn threads_and_levels_change_no_byte() {
    let folder = Folder::new("threads");
    let mix = Options::new(Mix::named("Q4_K_M").unwrap());
    let mut files = Vec::new();
    for (i, level) in gristmill::Level::available().enumerate() {
        let output = folder.file(&format!("{i}.gguf"));
        let options = mix.clone().threads(1 + i % 3).level(level);
        quantize(in_repository(SMALL), &output, &options, |_| ControlFlow::Continue(())).unwrap();
        files.push(fs::read(output).unwrap());
    }
    assert!(files.iter().all(|file| *file == files[0]));
}

#[test]
fn parts_hold_together_what_one_file_holds() {
    let folder = Folder::new("parts");
    let go = |input: &Path, output: &str, options: &Options| {
        quantize(input, folder.file(output), options, |_| ControlFlow::Continue(())).unwrap().files
    };
    let one = go(&in_repository(SMALL), "one.gguf", &q8_0());
    let parts = go(&in_repository(SMALL), "split.gguf", &q8_0().splitting(Splitting::MaxBytes(100_000)));
    assert!(parts.len() > 2, "{parts:?}");
    assert!(parts[1].ends_with(format!("split-00002-of-{:05}.gguf", parts.len())), "{parts:?}");
    for part in &parts {
        let bytes = fs::read(part).unwrap();
        let gguf = Gguf::parse(&bytes).unwrap();
        let total: u64 = gguf.tensors.iter().map(|tensor| tensor.bytes()).sum();
        assert!(total <= 100_000 || gguf.tensors.len() == 1, "{total} in {}", part.display());
    }
    let whole = ModelFile::open(&one[0]).unwrap();
    assert_eq!(tensors(&ModelFile::open(&parts[0]).unwrap()), tensors(&whole));

    // Joined again, nothing is lost, and kept apart, each part keeps its tensors.
    let copy = Options::new(Mix::named("COPY").unwrap());
    let joined = go(&parts[1], "joined.gguf", &copy);
    assert_eq!(fs::read(&joined[0]).unwrap(), fs::read(&one[0]).unwrap());
    let kept = go(&parts[0], "kept.gguf", &copy.splitting(Splitting::Keep));
    assert_eq!(kept.len(), parts.len());
    for (kept, part) in kept.iter().zip(&parts) {
        assert_eq!(fs::read(kept).unwrap(), fs::read(part).unwrap());
    }
}

#[test]
fn the_input_is_not_overwritten_by_whatever_name() {
    let folder = Folder::new("same");
    let input = folder.file("in.gguf");
    fs::copy(in_repository(SMALL), &input).unwrap();
    let before = fs::read(&input).unwrap();
    let mut names = vec![input.clone(), folder.0.join(".").join("in.gguf")];
    #[cfg(unix)]
    {
        names.extend([folder.file("hard.gguf"), folder.file("soft.gguf")]);
        fs::hard_link(&input, &names[2]).unwrap();
        std::os::unix::fs::symlink(&input, &names[3]).unwrap();
    }
    for name in &names {
        let error = quantize(&input, name, &q8_0(), |_| ControlFlow::Continue(())).unwrap_err();
        assert!(matches!(error, Error::QuantizeOntoInput { .. }), "{}: {error}", name.display());
    }
    assert_eq!(fs::read(&input).unwrap(), before);
}

#[test]
fn work_that_is_stopped_leaves_no_file() {
    let folder = Folder::new("stopped");
    let mut calls = 0;
    let error = quantize(in_repository(SMALL), folder.file("out.gguf"), &q8_0(), |progress| {
        calls += 1;
        assert!(progress.done <= progress.total);
        // What is there so far bears another name.
        assert!(!folder.names().contains(&"out.gguf".to_owned()));
        if calls == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    assert_eq!(folder.names(), Vec::<String>::new());
}

#[test]
fn what_cannot_be_done_is_told_and_leaves_no_file() {
    let folder = Folder::new("refused");
    let input = in_repository("vendor/models/tiny-instruct-q8_0.gguf");
    let go = |options: Options| {
        quantize(&input, folder.file("out.gguf"), &options, |_| ControlFlow::Continue(())).unwrap_err()
    };
    let iq1 = Options::new(Mix::named("IQ1_S").unwrap());
    assert!(matches!(go(iq1.clone()), Error::ImportanceMissing { .. }));
    let file = ModelFile::open(&input).unwrap();
    let mut imatrix = importance(shapes(&file));
    let values = imatrix.entries.get_mut("blk.0.attn_q.weight").unwrap();
    values.pop();
    let error = go(iq1.clone().imatrix(imatrix.clone()));
    assert!(matches!(error, Error::ImportanceShape { found: 255, expected: 256, .. }), "{error}");
    imatrix.entries.remove("blk.0.attn_q.weight");
    let error = go(iq1.imatrix(imatrix));
    assert!(
        matches!(&error, Error::ImportanceMissing { tensor, .. } if tensor == "blk.0.attn_q.weight"),
        "{error}"
    );
    let error = go(q8_0().tensor_type("(", GgmlType::Q4_0));
    assert!(matches!(&error, Error::TensorPattern { pattern, .. } if pattern == "("), "{error}");
    assert_eq!(folder.names(), Vec::<String>::new());
}

#[test]
fn a_weight_that_is_no_number_is_found() {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    let mut writer = Writer::new(metadata).unwrap();
    writer.tensor("blk.0.attn_q.weight", &[256, 2], GgmlType::F32).unwrap();
    let mut weights = vec![0.5_f32; 512];
    weights[300] = f32::NAN;
    let mut data = writer.start(Vec::new()).unwrap();
    let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    data.write("blk.0.attn_q.weight", &bytes).unwrap();
    let folder = Folder::new("nan");
    fs::write(folder.file("in.gguf"), data.finish().unwrap()).unwrap();
    let go = |mix: &str| {
        let options = Options::new(Mix::named(mix).unwrap());
        quantize(folder.file("in.gguf"), folder.file("out.gguf"), &options, |_| ControlFlow::Continue(()))
            .unwrap_err()
    };
    assert!(matches!(go("Q4_0"), Error::Encode { .. }));
    assert!(matches!(go("COPY"), Error::TensorDamaged { block: 300, .. }));
    assert_eq!(folder.names(), ["in.gguf"]);
}

#[test]
fn patterns_and_named_tensors_override_the_rules() {
    let file = ModelFile::open(in_repository("vendor/models/tiny-instruct-q8_0.gguf")).unwrap();
    let options = Options::new(Mix::named("Q4_K_M").unwrap())
        .tensor_type("ATTN_[qk]", GgmlType::Q5_1)
        .tensor_type("attn_q", GgmlType::Q2_K)
        .output_type(GgmlType::F16)
        .token_embedding_type(GgmlType::Q3_K);
    let plan = plan(&file, &options).unwrap();
    let ty = |name: &str| plan.tensors.iter().find(|planned| planned.tensor.name == name).unwrap().ty;
    assert_eq!(ty("blk.0.attn_q.weight"), GgmlType::Q5_1);
    assert_eq!(ty("blk.1.attn_k.weight"), GgmlType::Q5_1);
    assert_eq!(ty("blk.0.ffn_up.weight"), GgmlType::Q4_K);
    assert_eq!(ty("output.weight"), GgmlType::F16);
    assert_eq!(ty("token_embd.weight"), GgmlType::Q3_K);
    assert_eq!(ty("output_norm.weight"), GgmlType::F32);
}
