/** The types of tabs.js: one connection for all tabs of a browser. See docs/browser.md in the repository of gpoll. */

import type { GpollSource, Options } from "./gpoll.js";

export interface SharedOptions extends Options {
  /** Tabs share a connection if they give the same url and the same share. Give the user, where tabs may have several. */
  share?: string;
}

/**
 * A GpollSource to its page, of which only one among all tabs has a connection. When that tab closes another one takes it
 * over, as the same client of the server and without a loss. Requests of the server are answered by the tab that has the
 * connection. Where the browser lacks Web Locks (plain HTTP) or BroadcastChannel, each tab has a connection.
 */
export interface SharedSource extends GpollSource {
  /** Whether this tab has the connection. */
  readonly leads: boolean;
}

export const SharedSource: {
  new (url: string | URL, options?: SharedOptions): SharedSource;
  readonly CONNECTING: 0;
  readonly OPEN: 1;
  readonly CLOSED: 2;
};
