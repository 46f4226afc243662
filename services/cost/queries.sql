-- name: lock_budget
select limit_micros_usd from budget for update;

-- name: spent
select
  coalesce((select settled_micros_usd from spend), 0) as settled,
  coalesce((select sum(micros_usd) from lease where expires_at > $1 and generation_id <> $2), 0)::bigint as leased;

-- name: put_lease
insert into lease (tenant_id, generation_id, provider, model, input_tokens, micros_usd, expires_at)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict (tenant_id, generation_id) do update
  set micros_usd = excluded.micros_usd, expires_at = excluded.expires_at;

-- name: get_lease
select generation_id, provider, model, input_tokens, micros_usd, expires_at from lease where generation_id = $1;

-- name: drop_lease
delete from lease where generation_id = $1;

-- name: drop_ended_leases
delete from lease where expires_at <= $1;

-- name: append_event
insert into cost_event (
  tenant_id, id, generation_id, session_id, agent_name, provider, model, tokens_input, tokens_output,
  tokens_cached_input, tokens_reasoning, estimated, cost_micros_usd, cost_usd, price_version, created_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::bigint, $13::bigint::numeric / 1000000, $14, $15)
on conflict (tenant_id, generation_id) do nothing
returning id;

-- name: get_event
select * from cost_event where generation_id = $1;

-- name: add_spend
insert into spend (tenant_id, settled_micros_usd) values ($1, $2)
on conflict (tenant_id) do update set settled_micros_usd = spend.settled_micros_usd + excluded.settled_micros_usd;

-- name: summarize
select
  case when 'provider' = any($5::text[]) then provider else '' end as provider,
  case when 'model' = any($5::text[]) then model else '' end as model,
  case when 'agent' = any($5::text[]) then agent_name else '' end as agent,
  case when 'session' = any($5::text[]) then session_id else '' end as session,
  case when 'day' = any($5::text[]) then to_char(created_at at time zone 'UTC', 'YYYY-MM-DD') else '' end as day,
  sum(cost_micros_usd)::bigint as micros_usd,
  sum(tokens_input)::bigint as input_tokens,
  sum(tokens_output)::bigint as output_tokens,
  count(*) as generations
from cost_event
where ($1::timestamptz is null or created_at >= $1)
  and ($2::timestamptz is null or created_at < $2)
  and ($3::text = '' or session_id = $3)
  and ($4::text = '' or model = $4)
group by 1, 2, 3, 4, 5
order by micros_usd desc, 1, 2, 3, 4, 5
offset $6 limit $7;

-- name: newest_events
select * from cost_event
where ($1::timestamptz is null or created_at >= $1)
  and ($2::timestamptz is null or created_at < $2)
  and ($3::text = '' or session_id = $3)
  and ($4::text = '' or model = $4)
  and ($5::timestamptz is null or (created_at, id) < ($5, $6))
order by created_at desc, id desc
limit $7;

-- name: oldest_events
select * from cost_event
where ($1::timestamptz is null or created_at >= $1)
  and ($2::timestamptz is null or created_at < $2)
  and ($3::text = '' or session_id = $3)
  and ($4::text = '' or model = $4)
  and ($5::timestamptz is null or (created_at, id) > ($5, $6))
order by created_at, id
limit $7;

-- name: get_budget
select id, limit_micros_usd, updated_at from budget;

-- name: set_budget
insert into budget (tenant_id, id, limit_micros_usd, updated_at) values ($1, $2, $3, $4)
on conflict (tenant_id) do update set limit_micros_usd = excluded.limit_micros_usd, updated_at = excluded.updated_at;
