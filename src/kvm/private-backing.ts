/** How a memory slot asks what backs its private memory: a guest_memfd, or a memfd of the design before it. */
import type { Memslot } from './memslots.ts';

/** A page for the guest. @public */
export interface BackingPage {
  readonly pfn: number;
  /** Largest order at which the pages around `pfn` are contiguous and aligned in the backing: 0 or 9. */
  readonly maxOrder: number;
}

/** @public */
export interface PrivateBacking {
  readonly kind: 'guest_memfd' | 'memfile';
  /**
   * The page behind `gfn` of a bound slot, allocated when there is none (by policy, or on the node of the processor that
   * asks) and ready for the guest. Throws EFAULT, EIO,
   * ENOMEM, EHWPOISON. It may be gone again when this returns: map it only if the VM saw no invalidation since.
   */
  guestPage(slot: Memslot, gfn: number, localNode: number): Promise<BackingPage>;
  /** True when the backing itself says what is private, and no attributes of the VM count. */
  readonly tracksPrivate: boolean;
  /** Whether `gfn` is private, where the backing tracks it. */
  isPrivate(slot: Memslot, gfn: number): boolean;
  /** True when all of [startGfn, endGfn) within the slot are alike, where the backing tracks it. */
  isUniform(slot: Memslot, startGfn: number, endGfn: number): boolean;
  /** Forgets a slot that is being deleted; its guest mappings are gone already. */
  unbind(slot: Memslot): Promise<void>;
}
