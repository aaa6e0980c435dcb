//! Recurrent layers: where the operations and their order are those of the CPU's kernels, so are the bits.

use gristmill_kernels::Output;
use gristmill_kernels::metal::launch::{self, Recurrence};
use gristmill_kernels::simd::Level;
use gristmill_kernels::{recurrence, wkv};

use crate::device;
use crate::numbers::{ROUNDING, Random};

/// Between 0 and 1.
fn fractions(random: &mut Random, count: usize) -> Vec<f32> {
    random.floats(count).iter().map(|x| x.abs()).collect()
}

/// Of tokens' rows the columns of a head.
fn of_head(rows: &[f32], token: usize, heads: usize, head: usize, dim: usize) -> &[f32] {
    &rows[(token * heads + head) * dim..][..dim]
}

#[test]
fn states_go_through_the_tokens_as_on_the_cpu() {
    let mut device = device!();
    let mut random = Random(1);
    for (tokens, heads, key_heads, key_dim, value_dim) in
        [(1usize, 2usize, 1usize, 8usize, 8usize), (5, 4, 2, 16, 40), (3, 6, 3, 33, 64), (2, 2, 2, 128, 128)]
    {
        for (delta, tiled) in [(false, false), (true, false), (true, true)] {
            let [queries, keys] = [(); 2].map(|()| random.floats(tokens * key_heads * key_dim));
            let values = random.floats(tokens * heads * value_dim);
            let [decays, rates] = [(); 2].map(|()| fractions(&mut random, tokens * heads));
            let mut state = random.floats(heads * key_dim * value_dim);
            let buffers: Vec<_> = [&queries, &keys, &values, &decays, &rates, &state]
                .map(|numbers| device.floats(numbers))
                .into();
            let out = device.room(4 * values.len());
            let by = Recurrence {
                heads: heads as u32,
                key_heads: key_heads as u32,
                key_dim: key_dim as u32,
                value_dim: value_dim as u32,
                delta,
                tiled,
            };
            device.run(&by.launch(tokens as u32), &[buffers.clone(), vec![out]].concat());

            let mut expected = vec![0.0; values.len()];
            for (head, state) in state.chunks_exact_mut(key_dim * value_dim).enumerate() {
                let key_head = if tiled { head % key_heads } else { head / (heads / key_heads) };
                let steps = (0..tokens).map(|token| recurrence::Step {
                    key: of_head(&keys, token, key_heads, key_head, key_dim),
                    query: of_head(&queries, token, key_heads, key_head, key_dim),
                    value: of_head(&values, token, heads, head, value_dim),
                    decay: decays[token * heads + head],
                    rate: rates[token * heads + head],
                });
                let mut results = vec![0.0; tokens * value_dim];
                let mut output = Output::new(&mut results, value_dim).unwrap();
                recurrence::recur(Level::SCALAR, delta, state, steps, &mut output).unwrap();
                for (token, results) in results.chunks_exact(value_dim).enumerate() {
                    expected[(token * heads + head) * value_dim..][..value_dim].copy_from_slice(results);
                }
            }
            assert_eq!(device.read(out, expected.len()), expected, "{by:?} results");
            assert_eq!(device.read(buffers[5], state.len()), state, "{by:?} states");
        }
    }
}

#[test]
fn rwkv_goes_through_the_tokens_as_on_the_cpu() {
    let mut device = device!();
    let mut random = Random(2);
    for (tokens, heads, dim) in [(1usize, 1usize, 8usize), (4, 3, 64), (3, 2, 72)] {
        let inputs: [Vec<f32>; 6] = [(); 6].map(|()| fractions(&mut random, tokens * heads * dim));
        let mut state = random.floats(heads * dim * dim);
        let mut buffers: Vec<_> = inputs.iter().map(|numbers| device.floats(numbers)).collect();
        buffers.push(device.floats(&state));
        buffers.push(device.room(4 * tokens * heads * dim));
        device.run(&launch::wkv(tokens as u32, heads as u32, dim as u32), &buffers);

        let mut expected = vec![0.0; tokens * heads * dim];
        for (head, state) in state.chunks_exact_mut(dim * dim).enumerate() {
            let steps = (0..tokens).map(|token| {
                let [receptance, decay, key, a, b, value] =
                    inputs.each_ref().map(|rows| of_head(rows, token, heads, head, dim));
                wkv::Step { receptance, decay, key, a, b, value }
            });
            let mut results = vec![0.0; tokens * dim];
            let mut output = Output::new(&mut results, dim).unwrap();
            wkv::wkv(Level::SCALAR, state, steps, &mut output).unwrap();
            for (token, results) in results.chunks_exact(dim).enumerate() {
                expected[(token * heads + head) * dim..][..dim].copy_from_slice(results);
            }
        }
        assert_eq!(device.read(buffers[7], expected.len()), expected, "{heads} heads of {dim}");
        assert_eq!(device.read(buffers[6], state.len()), state, "{heads} heads of {dim}, states");
    }
}

#[test]
fn scans_are_right() {
    let mut device = device!();
    let mut random = Random(3);
    for (tokens, channels, states) in [(1usize, 1usize, 1usize), (4, 65, 16), (9, 130, 3)] {
        let x = random.floats(tokens * channels);
        let steps = fractions(&mut random, tokens * channels);
        let [into, out_of] = [(); 2].map(|()| random.floats(tokens * states));
        let rates: Vec<f32> = random.floats(states * channels).iter().map(|x| -3.0 * x.abs()).collect();
        let state = random.floats(states * channels);
        let mut buffers: Vec<_> =
            [&x, &steps, &into, &out_of, &rates, &state].map(|numbers| device.floats(numbers)).into();
        buffers.push(device.room(4 * x.len()));
        device.run(&launch::scan(tokens as u32, channels as u32, states as u32), &buffers);
        let (found, after) = (device.read(buffers[6], x.len()), device.read(buffers[5], state.len()));

        // Each state with how far it may be off: what it was off by decays, and every operation adds its rounding.
        let mut exact: Vec<(f64, f64)> = state.iter().map(|&s| (f64::from(s), 0.0)).collect();
        for token in 0..tokens {
            for channel in 0..channels {
                let at = token * channels + channel;
                let (length, input) = (f64::from(steps[at]), f64::from(steps[at]) * f64::from(x[at]));
                let (mut y, mut bound) = (0.0, 0.0);
                for n in 0..states {
                    let (s, off) = &mut exact[n * channels + channel];
                    let power = length * f64::from(rates[n * channels + channel]);
                    let (decay, way) = (power.exp(), f64::from(into[token * states + n]));
                    // The exponential itself is within four units in the last place on such a device.
                    *off = decay * (*off + s.abs() * (power.abs() + 9.0) * ROUNDING)
                        + 2.0 * ROUNDING * (way * input).abs();
                    *s = decay * *s + way * input;
                    *off += ROUNDING * s.abs();
                    let out = f64::from(out_of[token * states + n]);
                    y += *s * out;
                    bound += (*off + (states + 1) as f64 * ROUNDING * s.abs()) * out.abs();
                }
                let error = (f64::from(found[at]) - y).abs();
                assert!(error <= bound, "token {token} channel {channel}: off by {error}, bound {bound}");
            }
        }
        for (found, (s, off)) in after.iter().zip(&exact) {
            assert!((f64::from(*found) - s).abs() <= *off, "state {found}, not {s}; bound {off}");
        }
    }
}

#[test]
fn convolutions_see_the_tokens_before_as_on_the_cpu() {
    let mut device = device!();
    let mut random = Random(4);
    for (tokens, channels, taps) in [(1usize, 3usize, 4usize), (2, 70, 4), (7, 64, 3), (5, 130, 1)] {
        for has_bias in [false, true] {
            let x = random.floats(tokens * channels);
            let weights = random.floats(taps * channels);
            let bias = random.floats(channels);
            let state = random.floats((taps - 1) * channels);
            let before = device.floats(&[&state[..], &[0.0]].concat());
            let buffers = [device.floats(&x), device.floats(&weights), device.floats(&bias), before];
            let out = device.room(4 * x.len());
            let launch = launch::convolve(tokens as u32, channels as u32, taps as u32, has_bias);
            device.run(&launch, &[&buffers[..], &[out]].concat());

            let rows = [&state[..], &x].concat();
            let mut expected = vec![0.0; x.len()];
            for (token, out) in expected.chunks_exact_mut(channels).enumerate() {
                let rows = &rows[token * channels..][..taps * channels];
                recurrence::convolve(Level::SCALAR, &weights, has_bias.then_some(&bias[..]), rows, out)
                    .unwrap();
            }
            assert_eq!(device.read(out, x.len()), expected, "{tokens} tokens, {taps} taps");
            assert_eq!(device.read(before, state.len()), rows[tokens * channels..], "what is kept");
        }
    }
}
