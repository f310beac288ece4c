/**
 * What the API answers, as its description says (`scripts/web types` generates the types). Types only.
 *
 * @typedef {import('../../target/openapi-types/api').components['schemas']} Schemas
 * @typedef {Schemas['SaleState']} SaleState
 * @typedef {Schemas['Product']} Product
 * @typedef {Schemas['Summary']} Summary
 * @typedef {Schemas['Live']} Live
 * @typedef {Schemas['Payment']} Payment
 * @typedef {Schemas['OrderStatus']} OrderStatus
 * @typedef {Schemas['MerchantOrder']} MerchantOrder
 * @typedef {Schemas['OrderChange']} OrderChange
 * @typedef {Schemas['AdminAction']} AdminAction
 * @typedef {Schemas['Audit']} Audit
 * @typedef {Schemas['DeadLetter']} DeadLetter
 * @typedef {Schemas['ReplayedLetter']} Replayed
 * @typedef {Schemas['Webhook']} Endpoint
 * @typedef {Schemas['Delivery']} Delivery
 * @typedef {Schemas['EventType']} EventType
 * @typedef {Schemas['ShopSettings']} Settings
 * @typedef {Schemas['SeenRequest']} Check
 */

/**
 * @template T
 * @typedef {{ items: T[], next_cursor: string | null, total?: number }} Page
 */

export {};
