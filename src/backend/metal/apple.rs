//! Apple's GPU: what [`Device`] asks for, in Metal's words and nothing more.
//!
//! There was no Apple hardware to run this on: it is type-checked, and kept so thin that what can be wrong lies above it, where
//! the emulator finds it.
#![allow(
    unsafe_code,
    reason = "Metal cannot know whether arguments fit a kernel; each block says why they do"
)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr::NonNull;

use gristmill_kernels::metal::{Kernel, Launch, source};
use objc2::rc::{Retained, autoreleasepool};
use objc2::runtime::ProtocolObject;
use objc2_foundation::{NSError, NSProcessInfo, NSString};
use objc2_metal::{
    MTLBarrierScope, MTLBlitCommandEncoder, MTLBuffer, MTLCommandBuffer, MTLCommandBufferStatus,
    MTLCommandEncoder, MTLCommandQueue, MTLCompileOptions, MTLComputeCommandEncoder, MTLComputePipelineState,
    MTLCreateSystemDefaultDevice, MTLDevice, MTLDispatchType, MTLGPUFamily, MTLLibrary, MTLResidencySet,
    MTLResidencySetDescriptor, MTLResourceOptions, MTLSize,
};

use super::{About, Device, Place};
use crate::{Error, Result};

/// Bytes of a page of memory on every Apple processor that has such a GPU.
const PAGE: usize = 16 * 1024;
/// Threads of a simdgroup, as the kernels take them to be.
const LANES: usize = 32;

type Object<P> = Retained<ProtocolObject<P>>;

struct Apple {
    device: Object<dyn MTLDevice>,
    queue: Object<dyn MTLCommandQueue>,
    library: Object<dyn MTLLibrary>,
    about: About,
    buffers: HashMap<u64, Object<dyn MTLBuffer>>,
    next: u64,
    /// With the most threads that a threadgroup may have.
    pipelines: HashMap<Kernel, (Object<dyn MTLComputePipelineState>, usize)>,
    /// Where the system is new enough: keeps buffers in place between passes.
    residency: Option<Object<dyn MTLResidencySet>>,
    /// Buffers came or went since the set was told.
    residency_changed: bool,
    commands: Option<Object<dyn MTLCommandBuffer>>,
    encoder: Option<Object<dyn MTLComputeCommandEncoder>>,
}

// SAFETY: Metal's objects may be used from any thread; a command buffer and its encoder from one at a time, which `&mut`
// sees to, since neither ever leaves this struct.
unsafe impl Send for Apple {}

fn failed(doing: &'static str, said: impl ToString) -> Error {
    Error::Device { doing, said: said.to_string() }
}

fn said(doing: &'static str) -> impl FnOnce(Retained<NSError>) -> Error {
    move |error| failed(doing, error.localizedDescription())
}

/// The system's GPU, with the kernels compiled.
///
/// # Errors
/// [`Error::Device`] where there is none that the kernels are written for, or its compiler refuses them.
pub fn open() -> Result<Box<dyn Device>> {
    const OPENING: &str = "opening it";
    let device = MTLCreateSystemDefaultDevice().ok_or_else(|| failed(OPENING, "this system has none"))?;
    if !device.supportsFamily(MTLGPUFamily::Apple7) {
        let found = format!("expected an M1 or later, found {}", device.name());
        return Err(failed(OPENING, found));
    }
    let queue = device.newCommandQueue().ok_or_else(|| failed(OPENING, "it gives no queue"))?;
    let options = MTLCompileOptions::new();
    // Fast mathematics may take NaN for a number, but damage must reach the logits. Newer systems have another way to say so,
    // and still know this one.
    #[allow(deprecated, reason = "the only way before macOS 15")]
    options.setFastMathEnabled(false);
    let library = device
        .newLibraryWithSource_options_error(&NSString::from_str(&source()), Some(&options))
        .map_err(said("compiling the kernels"))?;
    let residency = if objc2::available!(macos = 15.0) {
        let set = device.newResidencySetWithDescriptor_error(&MTLResidencySetDescriptor::new());
        let set = set.map_err(said("keeping buffers in place"))?;
        queue.addResidencySet(&set);
        Some(set)
    } else {
        None
    };
    let system = NSProcessInfo::processInfo();
    let about = About {
        name: device.name().to_string(),
        system: format!("macOS {}", system.operatingSystemVersionString()),
        memory: system.physicalMemory(),
        memory_limit: device.recommendedMaxWorkingSetSize(),
        buffer_limit: device.maxBufferLength() as u64,
    };
    Ok(Box::new(Apple {
        device,
        queue,
        library,
        about,
        buffers: HashMap::new(),
        next: 0,
        pipelines: HashMap::new(),
        residency,
        residency_changed: false,
        commands: None,
        encoder: None,
    }))
}

impl Apple {
    fn keep(&mut self, buffer: Object<dyn MTLBuffer>) -> u64 {
        if let Some(set) = &self.residency {
            set.addAllocation(ProtocolObject::from_ref(&*buffer));
            self.residency_changed = true;
        }
        self.next += 1;
        self.buffers.insert(self.next, buffer);
        self.next
    }

    fn buffer(&self, id: u64) -> Result<&ProtocolObject<dyn MTLBuffer>> {
        let buffer = self.buffers.get(&id).ok_or(Error::Internal { what: "a buffer that is not there" })?;
        Ok(buffer)
    }

    /// Where bytes of a buffer that is shared lie.
    fn place(&self, id: u64, offset: usize, bytes: usize) -> Result<NonNull<u8>> {
        let buffer = self.buffer(id)?;
        if offset.checked_add(bytes).is_none_or(|end| end > buffer.length()) {
            return Err(Error::Internal { what: "a place behind the end of a buffer" });
        }
        // SAFETY: the place is within the buffer, as was just checked.
        Ok(unsafe { buffer.contents().cast::<u8>().add(offset) })
    }

    fn commands(&mut self) -> Result<Object<dyn MTLCommandBuffer>> {
        if let Some(commands) = &self.commands {
            return Ok(commands.clone());
        }
        let commands = autoreleasepool(|_| self.queue.commandBuffer());
        let commands = commands.ok_or_else(|| failed("making a command buffer", "there is none"))?;
        Ok(self.commands.insert(commands).clone())
    }

    /// The encoder of what may run at the same time.
    fn encoder(&mut self) -> Result<Object<dyn MTLComputeCommandEncoder>> {
        if let Some(encoder) = &self.encoder {
            return Ok(encoder.clone());
        }
        let commands = self.commands()?;
        let encoder =
            autoreleasepool(|_| commands.computeCommandEncoderWithDispatchType(MTLDispatchType::Concurrent));
        let encoder = encoder.ok_or_else(|| failed("making an encoder", "there is none"))?;
        Ok(self.encoder.insert(encoder).clone())
    }

    fn end_encoder(&mut self) {
        if let Some(encoder) = self.encoder.take() {
            encoder.endEncoding();
        }
    }
}

fn size([width, height, depth]: [u32; 3]) -> MTLSize {
    MTLSize { width: width as usize, height: height as usize, depth: depth as usize }
}

impl Device for Apple {
    fn about(&self) -> &About {
        &self.about
    }

    fn allocate(&mut self, bytes: usize, place: Place) -> Result<u64> {
        let options = match place {
            Place::Shared => MTLResourceOptions::StorageModeShared,
            Place::Private => MTLResourceOptions::StorageModePrivate,
        };
        let buffer = self.device.newBufferWithLength_options(bytes, options);
        let buffer =
            buffer.ok_or_else(|| failed("making a buffer", format!("no memory for {bytes} bytes")))?;
        Ok(self.keep(buffer))
    }

    unsafe fn window(&mut self, bytes: &[u8]) -> Result<Option<(u64, usize)>> {
        // A program for Intel has smaller pages, and no need to be fast here.
        if cfg!(not(target_arch = "aarch64")) {
            return Ok(None);
        }
        let offset = bytes.as_ptr() as usize % PAGE;
        let Some(first) = NonNull::new(bytes.as_ptr().wrapping_sub(offset).cast_mut()) else {
            return Ok(None);
        };
        let length = (offset + bytes.len()).next_multiple_of(PAGE);
        // SAFETY: the caller promises that the pages of `bytes` stay mapped until the buffer is freed; the kernels only read
        // them, and nothing is to be called when the buffer goes.
        let buffer = unsafe {
            self.device.newBufferWithBytesNoCopy_length_options_deallocator(
                first.cast::<c_void>(),
                length,
                MTLResourceOptions::StorageModeShared,
                None,
            )
        };
        Ok(buffer.map(|buffer| (self.keep(buffer), offset)))
    }

    fn free(&mut self, buffer: u64) {
        let Some(buffer) = self.buffers.remove(&buffer) else { return };
        if let Some(set) = &self.residency {
            set.removeAllocation(ProtocolObject::from_ref(&*buffer));
            self.residency_changed = true;
        }
    }

    fn write(&mut self, buffer: u64, offset: usize, bytes: &[u8]) -> Result<()> {
        let place = self.place(buffer, offset, bytes.len())?;
        // SAFETY: so many bytes are there, as `place` checks; no work uses them, as the caller promises; and no reference to
        // them exists, since a buffer's memory is Metal's.
        unsafe { place.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        Ok(())
    }

    fn read(&mut self, buffer: u64, offset: usize, to: &mut [u8]) -> Result<()> {
        let place = self.place(buffer, offset, to.len())?;
        // SAFETY: so many bytes are there, as `place` checks, and the GPU has finished, as the caller promises.
        unsafe { place.copy_to_nonoverlapping(NonNull::from(&mut *to).cast(), to.len()) };
        Ok(())
    }

    fn prepare(&mut self, launch: &Launch) -> Result<()> {
        const PREPARING: &str = "preparing a kernel";
        let threads = launch.threads as usize;
        let most = match self.pipelines.get(&launch.kernel) {
            Some((_, most)) => *most,
            None => {
                let name = launch.kernel.to_string();
                let function = self.library.newFunctionWithName(&NSString::from_str(&name));
                let function = function.ok_or_else(|| failed(PREPARING, format!("there is no {name}")))?;
                let pipeline = self.device.newComputePipelineStateWithFunction_error(&function);
                let pipeline = pipeline.map_err(said(PREPARING))?;
                let (most, lanes) =
                    (pipeline.maxTotalThreadsPerThreadgroup(), pipeline.threadExecutionWidth());
                if lanes != LANES {
                    let found = format!("{name}: expected simdgroups of {LANES} threads, found {lanes}");
                    return Err(failed(PREPARING, found));
                }
                self.pipelines.insert(launch.kernel, (pipeline, most));
                most
            }
        };
        if threads > most {
            let found = format!("{} needs {threads} threads, and may have {most}", launch.kernel);
            return Err(failed(PREPARING, found));
        }
        Ok(())
    }

    fn dispatch(&mut self, launch: &Launch, buffers: &[(u64, usize)]) -> Result<()> {
        let encoder = self.encoder()?;
        let (pipeline, _) = self
            .pipelines
            .get(&launch.kernel)
            .ok_or(Error::Internal { what: "a kernel that is not ready" })?;
        encoder.setComputePipelineState(pipeline);
        let params = launch.params();
        // SAFETY: `launch` makes the arguments of just this kernel, of the size that the kernel asserts; Metal copies them.
        unsafe {
            encoder.setBytes_length_atIndex(NonNull::from(params).cast::<c_void>(), params.len(), 0);
        }
        for (number, &(id, offset)) in (1..).zip(buffers) {
            let buffer = self.buffer(id)?;
            if offset >= buffer.length() {
                return Err(Error::Internal { what: "a place behind the end of a buffer" });
            }
            // SAFETY: the offset is within the buffer. That the kernel reads and writes no further than its end is what
            // the host's side is tested for, under the sanitizer of addresses.
            unsafe { encoder.setBuffer_offset_atIndex(Some(buffer), offset, number) };
        }
        if launch.shared > 0 {
            // Metal asks for multiples of 16 bytes.
            let bytes = (launch.shared as usize).next_multiple_of(16);
            // SAFETY: the kernels have one argument of threadgroup memory at most, number 0.
            unsafe { encoder.setThreadgroupMemoryLength_atIndex(bytes, 0) };
        }
        encoder.dispatchThreadgroups_threadsPerThreadgroup(size(launch.groups), size([launch.threads, 1, 1]));
        Ok(())
    }

    fn barrier(&mut self) {
        // Where there is no encoder, the next one begins behind the last.
        if let Some(encoder) = &self.encoder {
            encoder.memoryBarrierWithScope(MTLBarrierScope::Buffers);
        }
    }

    fn copy(&mut self, from: (u64, usize), to: (u64, usize), bytes: usize) -> Result<()> {
        self.end_encoder();
        let commands = self.commands()?;
        let blit = autoreleasepool(|_| commands.blitCommandEncoder());
        let blit = blit.ok_or_else(|| failed("making an encoder", "there is none"))?;
        let ends = [from, to].map(|(id, offset)| self.buffer(id).map(|buffer| (buffer, offset)));
        let [Ok((from, from_offset)), Ok((to, to_offset))] = ends else {
            blit.endEncoding();
            return Err(Error::Internal { what: "a buffer that is not there" });
        };
        let behind = |buffer: &ProtocolObject<dyn MTLBuffer>, offset: usize| {
            offset.checked_add(bytes).is_none_or(|end| end > buffer.length())
        };
        if behind(from, from_offset) || behind(to, to_offset) {
            blit.endEncoding();
            return Err(Error::Internal { what: "a place behind the end of a buffer" });
        }
        // SAFETY: both places are within their buffers, as was just checked.
        unsafe {
            blit.copyFromBuffer_sourceOffset_toBuffer_destinationOffset_size(
                from,
                from_offset,
                to,
                to_offset,
                bytes,
            );
        }
        blit.endEncoding();
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        self.end_encoder();
        let Some(commands) = self.commands.take() else { return Ok(()) };
        if std::mem::take(&mut self.residency_changed)
            && let Some(set) = &self.residency
        {
            set.commit();
            set.requestResidency();
        }
        autoreleasepool(|_| {
            commands.commit();
            commands.waitUntilCompleted();
        });
        match commands.status() {
            MTLCommandBufferStatus::Completed => Ok(()),
            _ => {
                let error = commands.error().map(|error| error.localizedDescription().to_string());
                Err(failed("running a pass", error.unwrap_or_else(|| "it did not complete".to_owned())))
            }
        }
    }
}

impl Drop for Apple {
    fn drop(&mut self) {
        // An encoder must be ended before it goes.
        self.end_encoder();
    }
}
