// What went wrong, in a sentence.

import { ApiError, Offline } from './api.js';
import { t, text } from './text.js';

/**
 * @param {unknown} error
 * @returns {string}
 */
export function explain(error) {
  if (error instanceof Offline) return t('error.offline');
  if (!(error instanceof ApiError)) {
    console.error(error);
    return t('error.unknown');
  }
  const { code, detail, body, requestId, retryAfter } = error;
  if (code === 'invalid_request') return t('error.invalid_request', { detail });
  if (code === 'rate_limited') return t('error.rate_limited', { n: retryAfter ?? 1 });
  if (code === 'not_cancellable' || code === 'not_payable') return t(`error.${code}`, { status: t(`error.status.${body.order_status}`) });
  if (code === 'stock_below_sold') return t('error.stock_below_sold', { least: body.least });
  if (code === 'not_enough_left') return t('error.not_enough_left', { n: body.remaining });
  if (code === 'address_limit' && body.remaining > 0) return t('error.address_limit.some', { n: body.remaining });
  if (code === 'internal') return t('error.internal', { id: requestId ?? '–' });
  if (KNOWN.has(code)) return t(`error.${code}`);
  return t('error.other', { detail: detail || `HTTP ${error.status}` });
}

/** @type {import('./text.js').Phrases} */
const EN = {
  'error.offline': 'No connection. Check your network and try again.',
  'error.unknown': 'Something went wrong on this page. Reload it and try again.',
  'error.other': 'That did not work: {detail}',
  'error.internal': 'Something went wrong on our side. If you tell us about it, name this: {id}',
  'error.invalid_request': 'That cannot be taken as it is: {detail}',
  'error.unauthorized': 'You are not logged in any more. Please log in again.',
  'error.invalid_credentials': 'The user name or the password is wrong.',
  'error.forbidden': 'This needs an administrator.',
  'error.not_found': 'There is nothing here.',
  'error.product_not_found': 'There is no such sale.',
  'error.order_not_found': 'There is no such order of yours.',
  'error.payment_not_found': 'There is no such payment of yours.',
  'error.dead_letter_not_found': 'That dead letter is gone.',
  'error.webhook_not_found': 'There is no such webhook.',
  'error.delivery_not_found': 'There is no such delivery.',
  'error.too_many_webhooks': 'There are as many webhooks as there can be. Delete one first.',
  'error.payments_off': 'No payment is taken here. The shop tells you how to pay.',
  'error.method_not_allowed': 'That is not possible here.',
  'error.username_taken': 'That user name is taken.',
  'error.idempotency_conflict': 'That was sent before with other content. Reload the page.',
  'error.stock_below_sold': '{least} units are sold or promised already: the stock cannot be lower.',
  'error.precondition_failed': 'Somebody else changed this sale meanwhile. Look at it again before you change it.',
  'error.still_live': 'The sale goes on. End or pause it first.',
  'error.draft': 'This sale is a draft. Publish it first.',
  'error.published': 'This sale is published and stays so. Pause or archive it.',
  'error.archived': 'This sale is archived and does not change any more.',
  'error.not_cancellable': 'The order is {status}: it cannot be cancelled.',
  'error.not_payable': 'The order is {status}: it cannot be paid.',
  'error.not_started': 'The sale has not started yet.',
  'error.ended': 'The sale has ended.',
  'error.paused': 'The sale is paused.',
  'error.already_purchased': 'You have one already.',
  'error.sold_out': 'Nothing is left.',
  'error.not_enough_left': { one: 'Only {n} is left.', other: 'Only {n} are left.' },
  'error.address_limit': 'Your network has had all that one network may buy. Try from another one.',
  'error.address_limit.some': { one: 'Your network may have only {n} more.', other: 'Your network may have only {n} more.' },
  'error.rate_limited': { one: 'Too many tries. Try again in {n} second.', other: 'Too many tries. Try again in {n} seconds.' },
  'error.unavailable': 'Busy. Try again in a moment.',
  'error.payload_too_large': 'That is too long.',
  'error.unsupported_media_type': 'That cannot be read here.',
  'error.status.queued': 'being written',
  'error.status.unpaid': 'not paid',
  'error.status.paid': 'paid',
  'error.status.cancelled': 'cancelled',
  'error.status.expired': 'expired',
  'error.status.rejected': 'not accepted',
};

/** @type {import('./text.js').Phrases} */
const ZH = {
  'error.offline': '网络连接中断，请检查网络后重试。',
  'error.unknown': '页面出错了，请刷新后重试。',
  'error.other': '操作未成功：{detail}',
  'error.internal': '服务器出错了。如需反馈，请附上编号：{id}',
  'error.invalid_request': '提交的内容有误：{detail}',
  'error.unauthorized': '登录已失效，请重新登录。',
  'error.invalid_credentials': '用户名或密码错误。',
  'error.forbidden': '需要管理员权限。',
  'error.not_found': '这里什么也没有。',
  'error.product_not_found': '没有这个商品。',
  'error.order_not_found': '没有找到您的这个订单。',
  'error.payment_not_found': '没有找到您的这笔付款。',
  'error.dead_letter_not_found': '该死信已不存在。',
  'error.webhook_not_found': '没有这个 Webhook。',
  'error.delivery_not_found': '没有这次投递。',
  'error.too_many_webhooks': 'Webhook 数量已达上限，请先删除一个。',
  'error.payments_off': '此处不收款，付款方式以商家通知为准。',
  'error.method_not_allowed': '此处不支持该操作。',
  'error.username_taken': '用户名已被占用。',
  'error.idempotency_conflict': '相同请求曾以不同内容提交过，请刷新页面。',
  'error.stock_below_sold': '已售出或已承诺 {least} 件，库存不能更低。',
  'error.precondition_failed': '其他管理员刚刚修改了这场抢购，请查看后再改。',
  'error.still_live': '抢购仍在进行，请先结束或暂停。',
  'error.draft': '该活动还是草稿，请先发布。',
  'error.published': '该活动已发布，不能变回草稿，请暂停或归档。',
  'error.archived': '该商品已归档，不能再修改。',
  'error.not_cancellable': '订单{status}，无法取消。',
  'error.not_payable': '订单{status}，无法付款。',
  'error.not_started': '抢购尚未开始。',
  'error.ended': '抢购已结束。',
  'error.paused': '抢购已暂停。',
  'error.already_purchased': '您已抢到过了。',
  'error.sold_out': '已抢光。',
  'error.not_enough_left': '仅剩 {n} 件。',
  'error.address_limit': '您所在的网络已达到购买上限，请换一个网络再试。',
  'error.address_limit.some': '您所在的网络最多还能购买 {n} 件。',
  'error.rate_limited': '操作过快，请 {n} 秒后再试。',
  'error.unavailable': '人数较多，请稍后再试。',
  'error.payload_too_large': '内容过长。',
  'error.unsupported_media_type': '无法识别该内容。',
  'error.status.queued': '正在生成',
  'error.status.unpaid': '待付款',
  'error.status.paid': '已付款',
  'error.status.cancelled': '已取消',
  'error.status.expired': '已过期',
  'error.status.rejected': '未成功',
};

const KNOWN = new Set(Object.keys(EN).map((key) => key.replace(/^error\./, '')));

text.add({ en: EN, zh: ZH });
