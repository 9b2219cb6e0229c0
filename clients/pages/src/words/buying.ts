/** The words of choosing, buying and paying, loaded with the sheet. */
import { learn } from "./language.ts";
import type { Pair } from "./words.ts";

export const BUYING_WORDS = {
  "bag.shelf": ["Shelf", "货架"],
  "bag.cart": ["Cart", "购物车"],
  "bag.orders": ["Orders", "订单"],
  "bag.cart.empty": ["Your cart is empty.", "购物车是空的。"],
  "bag.orders.empty": ["No orders yet.", "还没有订单。"],
  "bag.remove": ["Remove", "移除"],
  "bag.held": ["Held for {time}", "为你保留 {time}"],
  "bag.checkout": ["Check out · {price}", "去结算 · {price}"],
  "bag.total": ["Total", "合计"],
  "buy.now": ["Buy now · {price}", "立即购买 · {price}"],
  "buy.add": ["Add to cart", "加入购物车"],
  "buy.added": ["In your cart, held for {time}.", "已加入购物车,为你保留 {time}。"],
  "buy.choose": ["Choose", "选择规格"],
  "buy.qty": ["Quantity", "数量"],
  "buy.more": ["One more", "加一件"],
  "buy.less": ["One less", "减一件"],
  "buy.join": ["Sold out · tell me when it is back", "已售罄 · 到货为我保留"],
  "buy.leave": ["Waiting · leave the line", "候补中 · 点击退出"],
  "buy.waiting": [
    "You are in line, with {n} ahead. What comes back is held for you.",
    "已进入候补,前面还有 {n} 人。到货后会为你保留。",
  ],
  "buy.limit": ["At most {n} each", "每人限购 {n} 件"],
  "you.title": ["One tap to buy", "一键成为买家"],
  "you.why": [
    "This is a sandbox: pick a name, no account and no money needed.",
    "这是沙盒环境:取个名字即可,无需注册,不会扣款。",
  ],
  "you.name": ["Your name", "你的名字"],
  "you.go": ["Continue as {name}", "以 {name} 的身份继续"],
  "you.none": ["Open this page from your shop's app to buy.", "请从商家应用打开本页后购买。"],
  "order.title": ["Your order", "你的订单"],
  "order.payby": ["Pay within {time}", "请在 {time} 内付款"],
  "order.pay": ["Pay {price}", "支付 {price}"],
  "order.paying": ["Paying…", "支付中…"],
  "order.decline": ["Try a declined card", "模拟支付失败"],
  "order.cancel": ["Cancel order", "取消订单"],
  "order.sandbox": ["Sandbox payment: no money moves.", "沙盒支付:不会真实扣款。"],
  "order.failed": [
    "Payment failed. Try again or choose another way.",
    "支付失败,请重试或换一种方式。",
  ],
  "order.thanks": ["It is yours.", "它是你的了。"],
  "order.placed": ["To be paid", "待付款"],
  "order.closing": ["Closing…", "关闭中…"],
  "order.paid": ["Paid", "已支付"],
  "order.expired": ["Expired", "已过期"],
  "order.cancelled": ["Cancelled", "已取消"],
  "order.refund_pending": ["Refund on its way", "退款中"],
  "order.refunded": ["Refunded", "已退款"],
  "order.back": ["{price} of it refunded", "其中已退款 {price}"],
} as const satisfies Record<string, Pair>;

learn(BUYING_WORDS);
