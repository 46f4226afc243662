-- name: take
select * from take_leases($1, $2, $3, $4);

-- name: take_lease
select take_lease($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: settle
select * from settle_events($1, $2, $3);

-- name: settle_event
select settle_event(
  $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26,
  $27, $28, $29, $30, $31);

-- name: make_durable
select pg_logical_emit_message(true, 'agentnet.cost', '');

-- name: lock_counters
select pg_advisory_xact_lock_shared(7001, hashtext($1)), pg_advisory_xact_lock(7002, hashtext($1));

-- name: reclaim
select reclaim_leases($1, $2);

-- name: roll_up
select roll_up($1);

-- name: forget_leases
delete from lease where expires_at < $1 and micros_usd = 0;

-- name: forget_purses
delete from budget where scope like 'credential:%' and updated_at < $1;

-- name: open_purses
insert into budget (tenant_id, id, scope, period, limit_micros_usd, updated_at)
select $1, 'bud_' || purse, 'credential:' || purse, 'total', micros, $4
from unnest($2::text[], $3::bigint[]) p(purse, micros)
on conflict do nothing;

-- name: plan_for_these
set local plan_cache_mode = force_custom_plan;

-- name: summarize
select provider, model, agent, session, team, "user",
  case when 'hour' = any($7::text[]) then to_char(bucket at time zone 'UTC', 'YYYY-MM-DD"T"HH24') else '' end as hour,
  case when 'day' = any($7::text[]) then to_char(bucket at time zone 'UTC', 'YYYY-MM-DD') else '' end as day,
  micros_usd, input_tokens, output_tokens, cached_input_tokens, reasoning_tokens, generations, estimated
from (
  select
    case when 'provider' = any($7::text[]) then provider else '' end as provider,
    case when 'model' = any($7::text[]) then model else '' end as model,
    case when 'agent' = any($7::text[]) then agent_name else '' end as agent,
    case when 'session' = any($7::text[]) then session_id else '' end as session,
    case when 'team' = any($7::text[]) then team else '' end as team,
    case when 'user' = any($7::text[]) then user_id else '' end as "user",
    case when 'hour' = any($7::text[]) then date_trunc('hour', at, 'UTC')
      when 'day' = any($7::text[]) then date_trunc('day', at, 'UTC') end as bucket,
    sum(cost_micros_usd)::bigint as micros_usd, sum(tokens_input)::bigint as input_tokens,
    sum(tokens_output)::bigint as output_tokens, sum(tokens_cached_input)::bigint as cached_input_tokens,
    sum(tokens_reasoning)::bigint as reasoning_tokens, sum(entries)::bigint as generations,
    sum(estimated)::bigint as estimated
  from (
    select created_at as at, provider, model, agent_name, session_id, team, user_id, 1::bigint as entries,
      estimated::int::bigint as estimated, tokens_input::bigint, tokens_output::bigint, tokens_cached_input::bigint,
      tokens_reasoning::bigint, cost_micros_usd
    from cost_event where created_at >= $1 and created_at < $2
    union all
    select hour, provider, model, agent_name, '', team, user_id, entries, estimated, tokens_input, tokens_output,
      tokens_cached_input, tokens_reasoning, cost_micros_usd
    from hour_parts where personal = $14 and hour >= $2 and hour < $3
    union all
    select day, provider, model, agent_name, '', team, user_id, entries, estimated, tokens_input, tokens_output,
      tokens_cached_input, tokens_reasoning, cost_micros_usd
    from day_parts where personal = $14 and day >= $3 and day < $4
    union all
    select hour, provider, model, agent_name, '', team, user_id, entries, estimated, tokens_input, tokens_output,
      tokens_cached_input, tokens_reasoning, cost_micros_usd
    from hour_parts where personal = $14 and hour >= $4 and hour < $5
    union all
    select created_at, provider, model, agent_name, session_id, team, user_id, 1, estimated::int, tokens_input,
      tokens_output, tokens_cached_input, tokens_reasoning, cost_micros_usd
    from cost_event where created_at >= $5 and created_at < $6
  ) parts
  where ($8::text = '' or provider = $8) and ($9::text = '' or model = $9) and ($10::text = '' or agent_name = $10)
    and ($11::text = '' or team = $11) and ($12::text = '' or user_id = $12) and ($13::text = '' or session_id = $13)
  group by 1, 2, 3, 4, 5, 6, 7
) sums
order by micros_usd desc, 1, 2, 3, 4, 5, 6, 7, 8
offset $15 limit $16;

-- name: newest_events
select * from cost_event
where ($1::timestamptz is null or created_at >= $1)
  and ($2::timestamptz is null or created_at < $2)
  and ($3::text = '' or session_id = $3)
  and ($4::text = '' or model = $4)
  and ($5::text = '' or provider = $5)
  and ($6::text = '' or agent_name = $6)
  and ($7::text = '' or team = $7)
  and ($8::text = '' or user_id = $8)
  and ($9::timestamptz is null or (created_at, id) < ($9, $10))
order by created_at desc, id desc
limit $11;

-- name: oldest_events
select * from cost_event
where ($1::timestamptz is null or created_at >= $1)
  and ($2::timestamptz is null or created_at < $2)
  and ($3::text = '' or session_id = $3)
  and ($4::text = '' or model = $4)
  and ($5::text = '' or provider = $5)
  and ($6::text = '' or agent_name = $6)
  and ($7::text = '' or team = $7)
  and ($8::text = '' or user_id = $8)
  and ($9::timestamptz is null or (created_at, id) > ($9, $10))
order by created_at, id
limit $11;

-- name: get_budget
select b.*, b.scope as counted_scope, coalesce(c.settled_micros_usd, 0) as settled,
  coalesce(c.leased_micros_usd, 0) as leased
from budget b
left join budget_counter c on c.budget_id = b.id and c.scope = b.scope and c.period_start = period_start(b.period, $3)
where b.scope = $1 and b.period = $2;

-- name: list_budgets
select b.*, coalesce(c.scope, b.scope) as counted_scope, coalesce(c.settled_micros_usd, 0) as settled,
  coalesce(c.leased_micros_usd, 0) as leased
from budget b
left join budget_counter c on c.budget_id = b.id and c.period_start = period_start(b.period, $1)
order by array_position(array['tenant', 'team', 'user', 'agent', 'session', 'sub_agent'], split_part(b.scope, ':', 1)),
  b.scope, b.period, counted_scope
offset $2 limit $3;

-- name: lock_budgets
select pg_advisory_xact_lock(7001, hashtext($1)), pg_advisory_xact_lock(7002, hashtext($1));

-- name: put_budget
insert into budget (
  tenant_id, id, scope, period, limit_micros_usd, soft_limit_micros_usd, soft_action, updated_at)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (tenant_id, scope, period) do update set
  limit_micros_usd = excluded.limit_micros_usd, soft_limit_micros_usd = excluded.soft_limit_micros_usd,
  soft_action = excluded.soft_action, updated_at = excluded.updated_at
returning id;

-- name: begin_budget
with mine as (
  select split_part(b.scope, ':', 1) as level, substr(b.scope, strpos(b.scope, ':') + 1) as name, b.scope, b.period,
    b.id, period_start(b.period, $2) as began
  from budget b where b.id = $1
)
insert into budget_counter (tenant_id, budget_id, scope, period_start, settled_micros_usd)
select current_setting('app.tenant'), id, scope, began, coalesce(case
  when level in ('tenant', 'agent') and period = 'hour' then (
    select sum(cost_micros_usd) from hour_sums
    where hour >= began and (level = 'tenant' or name in (agent_name, split_part(agent_name, '@', 1))))
  when level in ('tenant', 'agent') then (
    select sum(cost_micros_usd) from day_sums
    where day >= began and (level = 'tenant' or name in (agent_name, split_part(agent_name, '@', 1))))
  when level in ('team', 'user') and period = 'hour' then (
    select sum(cost_micros_usd) from hour_parts
    where personal and hour >= began and case level when 'team' then team else user_id end = name)
  when level in ('team', 'user') then (
    select sum(cost_micros_usd) from day_parts
    where personal and day >= began and case level when 'team' then team else user_id end = name)
  when level = 'session' then (
    select sum(cost_micros_usd) from cost_event where session_id = name and created_at >= began)
  else (
    select sum(cost_micros_usd) from cost_event where created_at >= began and sub_agent = name)
  end, 0)
from mine
on conflict do nothing
returning id;

-- name: count_leases
with joined as (
  update lease set counters = counters || $1::bigint
  where keys @> array[$2::text] and micros_usd > 0 and expires_at > $3 and not counters @> array[$1::bigint]
  returning micros_usd
)
update budget_counter set leased_micros_usd = leased_micros_usd + (select coalesce(sum(micros_usd), 0) from joined)
where id = $1;

-- name: delete_budget
delete from budget where id = $1 and scope not like 'credential:%' returning id;

-- name: approve
insert into budget_counter (tenant_id, budget_id, scope, period_start, approved)
select b.tenant_id, b.id, case when b.scope like '%:*' then split_part(b.scope, ':', 1) || ':' || $2 else b.scope end,
  period_start(b.period, $3), true
from budget b where b.id = $1
on conflict (tenant_id, budget_id, scope, period_start) do update set approved = true;

-- name: budget_period
select period from budget where id = $1;

-- name: adopt_prices
insert into price_book (tenant_id, version, document, created_at, adopted_at) values ($1, $2, $3, $4, $4)
on conflict (tenant_id, version) do update set adopted_at = excluded.adopted_at;

-- name: price_book
select version, document, created_at from price_book
where case when $2 = '' then tenant_id = $1 else version = $2 end
order by tenant_id = $1 desc, adopted_at desc limit 1;

-- name: paces
select agent_name as agent, floor(extract(epoch from $2 - created_at) / $3)::int as ago,
  sum(cost_micros_usd)::bigint as micros_usd, sum(tokens_input::bigint + tokens_output)::bigint as tokens
from cost_event
where created_at > $1 and created_at <= $2
group by 1, 2;

-- name: patterns
select
  case $1 when 'provider' then provider when 'model' then model when 'agent' then agent_name when 'user' then user_id
    when 'team' then team else '' end as "group",
  count(*) as generations, sum(tokens_input)::bigint as input_tokens, sum(tokens_output)::bigint as output_tokens,
  percentile_disc(0.5) within group (order by tokens_input) as input_p50,
  percentile_disc(0.95) within group (order by tokens_input) as input_p95,
  percentile_disc(0.5) within group (order by tokens_output) as output_p50,
  percentile_disc(0.95) within group (order by tokens_output) as output_p95,
  sum(tokens_cached_input)::bigint as cached_tokens, sum(tokens_reasoning)::bigint as reasoning_tokens,
  sum(cost_micros_usd)::bigint as micros_usd
from cost_event
where created_at >= $2 and created_at < $3
group by 1
order by sum(tokens_input::bigint + tokens_output) desc, 1
limit $4;

-- name: pattern_hours
select
  case $1 when 'provider' then provider when 'model' then model when 'agent' then agent_name when 'user' then user_id
    when 'team' then team else '' end as "group",
  extract(hour from created_at at time zone 'UTC')::int as hour, sum(tokens_input::bigint + tokens_output)::bigint as tokens
from cost_event
where created_at >= $2 and created_at < $3
group by 1, 2;

-- name: raise_alert
insert into alert (
  tenant_id, id, once, kind, subject, action, observed, expected, explanation, created_at, active_until)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
on conflict (tenant_id, once) do nothing
returning id;

-- name: list_alerts
select * from alert
where ($1::text = '' or kind = $1) and ($2::timestamptz is null or (created_at, id) < ($2, $3))
order by created_at desc, id desc
limit $4;

-- name: active_alerts
select * from alert where active_until > $1 order by created_at desc, id desc limit 100;
