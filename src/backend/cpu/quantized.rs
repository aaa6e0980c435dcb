//! Activations in the forms that products take them in.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use gristmill_kernels::Mismatch;
use gristmill_kernels::activations::{Columns, Form, Layout, Room, quantize};
use gristmill_kernels::attention::Line;

use super::{Cpu, WORTH_SHARING, Workspace, grow, internal};
use crate::Result;
use crate::backend::Act;

/// The quantized form of the activations that were multiplied last.
#[derive(Default)]
pub(super) struct Quantized {
    /// Which activations, and how they lie; products of one input by several matrices quantize it once.
    of: Option<(Act, Layout)>,
    /// From the start of a cache line on, as the scales, for loops that read whole lines of them.
    codes: Vec<Line>,
    scales: Vec<Line>,
    sums: Vec<i32>,
}

/// Where a run of columns lies among the quantized ones: its layout, and where codes, scales and sums begin.
#[derive(Clone, Copy)]
pub(super) struct Place {
    layout: Layout,
    starts: [usize; 3],
}

impl Quantized {
    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        (self.codes.capacity() + self.scales.capacity()) * size_of::<Line>()
            + self.sums.capacity() * size_of::<i32>()
    }

    /// Holds nothing from now on, where it held the activations of a slot of which `stale` is true.
    pub fn forget(&mut self, stale: impl Fn(usize) -> bool) {
        self.of = self.of.filter(|(of, _)| !stale(of.slot));
    }

    /// The columns at `place`.
    ///
    /// # Errors
    /// [`Mismatch`] where there are none.
    pub fn columns(&self, place: Place) -> Result<Columns<'_>, Mismatch> {
        let Place { layout, starts: [codes, scales, sums] } = place;
        let [code_count, scale_count, sum_count] = layout.total_lens();
        Columns::quantized(
            layout,
            bytemuck::cast_slice(&self.codes).get(codes..codes + code_count).unwrap_or_default(),
            bytemuck::cast_slice(&self.scales).get(scales..scales + scale_count).unwrap_or_default(),
            self.sums.get(sums..sums + sum_count).unwrap_or_default(),
        )
    }

    /// Makes sure that there is room for so many codes, scales and sums.
    fn grow(&mut self, [codes, scales, sums]: [usize; 3]) -> Result<()> {
        let what = "quantized activations";
        grow(&mut self.codes, codes.div_ceil(size_of::<Line>()), what)?;
        grow(&mut self.scales, scales.div_ceil(size_of::<Line>() / size_of::<f32>()), what)?;
        grow(&mut self.sums, sums, what)
    }
}

impl Cpu<'_> {
    /// Makes sure that `quantized` holds `x` as products of so many columns want it in `form`.
    pub(super) fn quantize(&mut self, x: Act, form: Form) -> Result<Place> {
        let layout = Layout::new(self.level, form, x.width, x.rows)?;
        if self.work.quantized.of != Some((x, layout)) {
            self.quantize_runs(x, form, std::iter::once(0..x.rows))?;
            self.work.quantized.of = Some((x, layout));
        }
        Ok(Place { layout, starts: [0; 3] })
    }

    /// Quantizes `runs` of rows of `x`, each for itself, as products of so many columns want them.
    pub(super) fn quantize_runs(
        &mut self,
        x: Act,
        form: Form,
        runs: impl Iterator<Item = Range<usize>> + Clone,
    ) -> Result<Vec<Place>> {
        let (level, width) = (self.level, x.width);
        let mut places = Vec::new();
        let mut ends = [0; 3];
        for run in runs.clone() {
            let layout = Layout::new(level, form, width, run.len())?;
            places.push(Place { layout, starts: ends });
            for (end, len) in ends.iter_mut().zip(layout.total_lens()) {
                *end = end.saturating_add(len);
            }
        }
        let Workspace { slots, quantized, .. } = &mut *self.work;
        let data = slots.get(x.slot).and_then(|data| data.get(..x.rows * width));
        let data = data.ok_or_else(|| internal("activations of no whole number of rows"))?;
        quantized.of = None;
        quantized.grow(ends)?;
        let Quantized { codes, scales, sums, .. } = quantized;
        let mut room =
            Room { codes: bytemuck::cast_slice_mut(codes), scales: bytemuck::cast_slice_mut(scales), sums };
        let mut jobs = Vec::new();
        for (run, &Place { layout, .. }) in runs.zip(&places) {
            let columns = data.get(run.start * width..run.end * width).unwrap_or_default();
            let parts = layout.parts(columns, &mut room);
            jobs.extend(parts.map(|part| Mutex::new(Some((layout, part)))));
        }
        let job = |job: usize, _: usize| {
            let taken =
                jobs.get(job).and_then(|job| job.lock().unwrap_or_else(PoisonError::into_inner).take());
            if let Some((layout, part)) = taken {
                // The lengths belong together: the layout has cut all of them.
                let _ = quantize(level, layout, part);
            }
        };
        if data.len() < WORTH_SHARING {
            (0..jobs.len()).for_each(|column| job(column, 0));
        } else {
            self.team.run(jobs.len(), &job);
        }
        Ok(places)
    }
}
