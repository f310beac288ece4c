/**
 * What the API answers, as far as the console reads it. Types only.
 *
 * @typedef {'upcoming' | 'live' | 'paused' | 'sold_out' | 'ended'} SaleState
 *
 * @typedef {object} Product
 * @property {number} id
 * @property {string} name
 * @property {string} description
 * @property {number} price_cents
 * @property {string} currency
 * @property {number | null} payment_window_seconds
 * @property {number} max_per_order
 * @property {string | null} image_url
 * @property {number} revision
 * @property {number} stock
 * @property {number} remaining
 * @property {number} held
 * @property {SaleState} state
 * @property {string} starts_at
 * @property {string | null} ends_at
 * @property {boolean} paused
 * @property {string | null} sold_out_at
 * @property {string} [archived_at]
 * @property {string} created_at
 * @property {string} [server_time]
 *
 * @typedef {object} Summary
 * @property {number} product_id
 * @property {number} stock
 * @property {number | null} remaining
 * @property {number | null} queued
 * @property {number} unpaid
 * @property {number} paid
 * @property {number} expired
 * @property {number} cancelled
 * @property {number} rejected
 * @property {number} refund_due
 * @property {number} revenue_cents
 * @property {string | null} currency
 * @property {boolean} balanced
 *
 * @typedef {object} Live
 * @property {string} server_time
 * @property {string} instance_started_at
 * @property {number} accepted
 * @property {Record<string, number>} refused
 * @property {number} written
 * @property {number} in_flight
 * @property {number} oldest_in_flight_seconds
 * @property {number | null} queue_messages
 * @property {number | null} dead_letters
 * @property {number} listeners
 *
 * @typedef {object} Payment
 * @property {string} id
 * @property {string} order_id
 * @property {string} provider
 * @property {string} status
 * @property {number} amount_cents
 * @property {string} currency
 * @property {string | null} reference
 * @property {string} created_at
 * @property {string} updated_at
 *
 * @typedef {'queued' | 'unpaid' | 'paid' | 'cancelled' | 'expired' | 'rejected'} OrderStatus
 *
 * @typedef {object} MerchantOrder
 * @property {string} id
 * @property {number} product_id
 * @property {string} product_name
 * @property {number} price_cents
 * @property {number} quantity
 * @property {number} total_cents
 * @property {string} currency
 * @property {OrderStatus} status
 * @property {string | null} reason
 * @property {string} created_at
 * @property {string} updated_at
 * @property {string | null} expires_at
 * @property {string | null} paid_at
 * @property {number} user_id
 * @property {string | null} username
 * @property {Payment[]} payments
 *
 * @typedef {object} OrderChange
 * @property {string} at
 * @property {OrderStatus} from
 * @property {OrderStatus} to
 * @property {'buyer' | 'admin' | 'expiry' | 'provider' | 'system'} by
 * @property {number | null} user_id
 * @property {string | null} username
 * @property {string | null} reason
 *
 * @typedef {object} AdminAction
 * @property {number} id
 * @property {number} user_id
 * @property {string | null} username
 * @property {string} action
 * @property {string} object
 * @property {string} changes
 * @property {string | null} reason
 * @property {string} changed_at
 *
 * @typedef {object} Audit
 * @property {number} stock
 * @property {number | null} remaining_gate
 * @property {number} remaining_database
 * @property {number} sold
 * @property {number} live_units
 * @property {number | null} taken
 * @property {number} queued
 * @property {number} drift
 * @property {string[]} findings
 * @property {boolean} balanced
 *
 * @typedef {object} DeadLetter
 * @property {string} id
 * @property {string | null} parked_at
 * @property {string | null} reason
 * @property {number | string | null} product_id
 * @property {number} purchases
 * @property {string} body
 *
 * @typedef {object} Replayed
 * @property {string | null} reason
 * @property {{ outcome: 'put_back' | 'decided' | 'kept' }[]} purchases
 *
 * @typedef {object} Endpoint
 * @property {string} id
 * @property {string} url
 * @property {string[]} events
 * @property {string} description
 * @property {boolean} active
 * @property {string | null} failing_since
 * @property {string | null} off_reason
 * @property {string | null} old_secret_until
 * @property {string} created_at
 * @property {string} [secret]
 *
 * @typedef {object} Delivery
 * @property {string} id
 * @property {string} event_id
 * @property {string} type
 * @property {string | number | null} object_id
 * @property {'pending' | 'delivered' | 'failed'} status
 * @property {number} tries
 * @property {number | null} last_status
 * @property {string | null} last_error
 * @property {string | null} last_try_at
 * @property {string | null} next_try_at
 * @property {string} created_at
 * @property {string | null} delivered_at
 *
 * @typedef {object} Settings
 * @property {string} name
 * @property {string} time_zone
 * @property {string} currency
 * @property {'local' | 'external'} users
 * @property {'open' | 'closed'} registration
 * @property {'none' | 'test' | 'external' | 'stripe'} payments
 * @property {number | null} payment_window_seconds
 *
 * @typedef {object} Check
 * @property {string} client_address
 * @property {string} peer_address
 * @property {boolean} via_proxy
 * @property {string | null} forwarded_for
 * @property {string | null} scheme
 * @property {string} host
 * @property {string} http_version
 * @property {string} server_time
 */

/**
 * @template T
 * @typedef {{ items: T[], next_cursor: string | null, total?: number }} Page
 */

export {};
