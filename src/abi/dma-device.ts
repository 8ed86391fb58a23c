/** The words of the DMA device: a character device of ours that writes memory as hardware does. */
import { _IOW, _IOWR } from './ioctl-number.ts';
import { struct, u32, u64 } from './struct.ts';

/** Its path. @public */
export const DMA_DEVICE_PATH = '/dev/tdxlab-dma';

/** Pins the pages of a user range for DMA; `handle` is filled in. @public */
export const DMA_PIN = struct({ address: u64, length: u64, handle: u32, pad: u32 });

/** Moves bytes between `buffer`, an address of the process, and the pinned range, at `offset` in it. @public */
export const DMA_TRANSFER = struct({ handle: u32, pad: u32, offset: u64, buffer: u64, length: u64 });

/** Lets go of a pinned range. @public */
export const DMA_UNPIN = struct({ handle: u32, pad: u32 });

const TYPE = 0xd0;

/** Its requests. READ and WRITE are the device's: WRITE changes memory. @public */
export const DMA = {
  PIN: _IOWR(TYPE, 0, DMA_PIN),
  WRITE: _IOW(TYPE, 1, DMA_TRANSFER),
  READ: _IOW(TYPE, 2, DMA_TRANSFER),
  UNPIN: _IOW(TYPE, 3, DMA_UNPIN),
} as const;
