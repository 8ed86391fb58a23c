/** What one call did to the abstract state, as far as invariants ask for it. */
import type { AbstractEntry, AbstractPage, AbstractTd, KeyIdState, Reach } from './abstract-state.ts';

/** @public */
export type Effect =
  /** A page went from the host to the module; `previous` is the page that was in its place, which must not be. */
  | {
      readonly kind: 'given';
      readonly address: number;
      readonly page: AbstractPage;
      readonly previous: AbstractPage | undefined;
    }
  /** A page went back to the host; `reach` tells when a guest could reach it or, for a table, could walk through it. */
  | {
      readonly kind: 'returned';
      readonly address: number;
      readonly page: AbstractPage | undefined;
      readonly td: AbstractTd | undefined;
      readonly reach: Reach | null;
    }
  /** A guest address began to lead to a page. */
  | { readonly kind: 'mapped'; readonly td: AbstractTd; readonly key: number; readonly entry: AbstractEntry }
  /** A KeyID was given to a TD, or freed; `cachedPackages` may still have held lines under it. */
  | {
      readonly kind: 'key';
      readonly change: 'assigned' | 'freed';
      readonly keyId: number;
      readonly before: KeyIdState;
      readonly cachedPackages: number;
    }
  /** The key of a TD was blocked: nothing may use it any more. */
  | { readonly kind: 'blocked'; readonly td: AbstractTd }
  /** A vCPU was entered on an LP; `holder` had it until then, `running` was on the LP. */
  | {
      readonly kind: 'entered';
      readonly tdvpr: number;
      readonly lp: number;
      readonly holder: number | null;
      readonly wasEntered: boolean;
      readonly running: number | undefined;
    }
  /** A TD came to its end; its pages should be gone. */
  | { readonly kind: 'ended'; readonly td: AbstractTd }
  /** The module answered with a value that the abstract state knows. */
  | {
      readonly kind: 'answered';
      readonly what: string;
      readonly expected: number | bigint;
      readonly found: number | bigint;
    }
  /** A call succeeded on something that the abstract state does not have. */
  | { readonly kind: 'unfounded'; readonly what: string };
