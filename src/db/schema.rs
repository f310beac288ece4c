//! The tables, in column types that every supported database has.

diesel::table! {
    users (id) {
        id -> BigInt,
        username -> Text,
        username_key -> Text,
        password_hash -> Text,
        role -> Text,
        created_at -> Timestamp,
        token_generation -> BigInt,
    }
}

diesel::table! {
    external_users (id) {
        id -> BigInt,
        issuer -> Binary,
        subject -> Binary,
        tokens_valid_from -> BigInt,
        created_at -> Timestamp,
    }
}

diesel::table! {
    token_withdrawals (id) {
        id -> BigInt,
        user_id -> BigInt,
        valid_from -> BigInt,
        created_at -> Timestamp,
    }
}

diesel::table! {
    products (id) {
        id -> BigInt,
        name -> Text,
        description -> Text,
        price_cents -> BigInt,
        stock -> BigInt,
        sold -> BigInt,
        starts_at -> Timestamp,
        ends_at -> Nullable<Timestamp>,
        paused -> Bool,
        // Its first name, which versions before read as well.
        #[sql_name = "ver"]
        revision -> BigInt,
        gate_epoch -> BigInt,
        gate_fence -> BigInt,
        gate_home -> Text,
        created_at -> Timestamp,
        currency -> Nullable<Text>,
        payment_window_seconds -> Nullable<BigInt>,
        max_per_order -> BigInt,
        image_url -> Nullable<Text>,
        withheld -> BigInt,
        paid -> BigInt,
        sold_out_at -> Nullable<Timestamp>,
        archived_at -> Nullable<Timestamp>,
        draft -> Bool,
        max_per_address -> Nullable<BigInt>,
        expired -> BigInt,
        cancelled -> BigInt,
        rejected -> BigInt,
        revenue_cents -> BigInt,
    }
}

diesel::table! {
    product_revisions (product_id, revision) {
        product_id -> BigInt,
        revision -> BigInt,
        name -> Text,
        price_cents -> BigInt,
        created_at -> Timestamp,
        currency -> Nullable<Text>,
        payment_window_seconds -> Nullable<BigInt>,
    }
}

diesel::table! {
    orders (id) {
        id -> Binary,
        product_id -> BigInt,
        user_id -> BigInt,
        live_user -> Nullable<BigInt>,
        status -> Text,
        reason -> Nullable<Text>,
        price_cents -> BigInt,
        release_due -> Nullable<Bool>,
        created_at -> Timestamp,
        updated_at -> Timestamp,
        revision -> Nullable<BigInt>,
        quantity -> BigInt,
        paid_at -> Nullable<Timestamp>,
        revived_by -> Nullable<Binary>,
    }
}

diesel::table! {
    order_changes (id) {
        id -> BigInt,
        order_id -> Binary,
        from_status -> Text,
        to_status -> Text,
        changed_by -> Text,
        changed_by_user -> Nullable<BigInt>,
        reason -> Nullable<Text>,
        changed_at -> Timestamp,
    }
}

diesel::table! {
    admin_log (id) {
        id -> BigInt,
        user_id -> BigInt,
        user_name -> Nullable<Text>,
        action -> Text,
        object -> Text,
        changes -> Text,
        changed_at -> Timestamp,
        reason -> Nullable<Text>,
    }
}

diesel::table! {
    payment_deadlines (id) {
        id -> BigInt,
        first_order -> Binary,
        last_order -> Binary,
        due_at -> Timestamp,
    }
}

diesel::table! {
    order_lookup (list, order_id) {
        list -> BigInt,
        order_id -> Binary,
    }
}

diesel::table! {
    order_lookup_gaps (id) {
        id -> BigInt,
        first_order -> Binary,
        last_order -> Binary,
        orders -> BigInt,
        changed -> Bool,
        product_ids -> Nullable<Text>,
    }
}

diesel::table! {
    payments (id) {
        id -> Binary,
        order_id -> Binary,
        provider -> Text,
        status -> Text,
        amount_cents -> BigInt,
        currency -> Nullable<Text>,
        reference -> Nullable<Text>,
        unique_reference -> Nullable<Text>,
        pending_order -> Nullable<Binary>,
        created_at -> Timestamp,
        updated_at -> Timestamp,
        redirect_url -> Nullable<Text>,
        checkout -> Nullable<Text>,
        spent_tries -> BigInt,
        ask_at -> Nullable<Timestamp>,
        asked -> BigInt,
    }
}

diesel::table! {
    payment_events (provider, event_id) {
        provider -> Text,
        event_id -> Text,
        payment_id -> Binary,
        received_at -> Timestamp,
    }
}

diesel::table! {
    idempotency_keys (user_id, idempotency_key) {
        user_id -> BigInt,
        idempotency_key -> Text,
        request_hash -> Binary,
        product_id -> BigInt,
        response -> Nullable<Text>,
        created_at -> Timestamp,
    }
}

diesel::table! {
    deployment (id) {
        id -> Integer,
        deployment_id -> Text,
        redis_id -> Nullable<Text>,
        redis_name -> Nullable<Text>,
        queue_id -> Nullable<Text>,
        queue_name -> Nullable<Text>,
    }
}

diesel::table! {
    webhook_endpoints (id) {
        id -> BigInt,
        url -> Text,
        events -> Text,
        description -> Text,
        active -> Bool,
        secret -> Text,
        old_secret -> Nullable<Text>,
        old_secret_until -> Nullable<Timestamp>,
        failing_since -> Nullable<Timestamp>,
        off_reason -> Nullable<Text>,
        created_at -> Timestamp,
        updated_at -> Timestamp,
    }
}

diesel::table! {
    outbox (id) {
        id -> BigInt,
        event_type -> Text,
        event_key -> Binary,
        objects -> Binary,
        snapshot -> Nullable<Text>,
        pending -> Nullable<Bool>,
        fanned_out -> BigInt,
        created_at -> Timestamp,
    }
}

diesel::table! {
    webhook_deliveries (id) {
        id -> BigInt,
        endpoint_id -> BigInt,
        outbox_id -> BigInt,
        event_id -> Binary,
        event_type -> Text,
        object -> Binary,
        status -> Text,
        tries -> BigInt,
        due_at -> Nullable<Timestamp>,
        lease -> Nullable<Binary>,
        last_status -> Nullable<BigInt>,
        last_error -> Nullable<Text>,
        last_try_at -> Nullable<Timestamp>,
        delivered_at -> Nullable<Timestamp>,
        created_at -> Timestamp,
    }
}

diesel::joinable!(orders -> products (product_id));
diesel::allow_tables_to_appear_in_same_query!(order_changes, orders, payments, product_revisions, products, users);
diesel::allow_tables_to_appear_in_same_query!(outbox, webhook_deliveries, webhook_endpoints);
