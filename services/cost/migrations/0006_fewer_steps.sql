-- A lease and a settlement taken alone again: what they look for is found by its key, what a lease was counted on is remembered
-- with it, and roll-ups are added up later.

-- Nobody looks an entry up by its id.
alter table cost_event drop constraint cost_event_pkey;

-- When both keys began with the tenant, counters looked for by their ids could be found by this one, reading all of the tenant.
alter table budget_counter
  drop constraint budget_counter_tenant_id_budget_id_scope_period_start_key,
  add constraint budget_counter_key unique (budget_id, scope, period_start, tenant_id);

-- Sums of entries that are in no roll-up yet, one an entry: half the work of adding to a row of hours and one of days.
create table cost_fresh (like cost_hour) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
create index cost_fresh_hour_idx on cost_fresh (tenant_id, hour);
alter table cost_fresh enable row level security;
alter table cost_fresh force row level security;
create policy tenant on cost_fresh using (tenant_id = nullif(current_setting('app.tenant', true), ''));

-- What reports read: exact at any instant.
create view hour_sums with (security_invoker = true) as select * from cost_hour union all select * from cost_fresh;
create view day_sums with (security_invoker = true) as
  select * from cost_day
  union all
  select tenant_id, date_trunc('day', hour, 'UTC'), provider, model, agent_name, entries, estimated, tokens_input, tokens_output,
    tokens_cached_input, tokens_reasoning, cost_micros_usd
  from cost_fresh;

-- Adds what is fresh to the hours and days. To be called by who holds the tenant's lock 7002.
create function roll_up(p_tenant text) returns void language sql as $$
  with moved as (
    delete from cost_fresh where tenant_id = p_tenant returning *
  ), sums as (
    select hour, provider, model, agent_name, sum(entries) as entries, sum(estimated) as estimated, sum(tokens_input) as input,
      sum(tokens_output) as output, sum(tokens_cached_input) as cached, sum(tokens_reasoning) as reasoning,
      sum(cost_micros_usd) as micros
    from moved group by 1, 2, 3, 4
  ), hours as (
    insert into cost_hour as known
    select p_tenant, * from sums
    on conflict (tenant_id, hour, provider, model, agent_name) do update set
      entries = known.entries + excluded.entries, estimated = known.estimated + excluded.estimated,
      tokens_input = known.tokens_input + excluded.tokens_input,
      tokens_output = known.tokens_output + excluded.tokens_output,
      tokens_cached_input = known.tokens_cached_input + excluded.tokens_cached_input,
      tokens_reasoning = known.tokens_reasoning + excluded.tokens_reasoning,
      cost_micros_usd = known.cost_micros_usd + excluded.cost_micros_usd
  )
  insert into cost_day as known
  select p_tenant, date_trunc('day', hour, 'UTC'), provider, model, agent_name, sum(entries), sum(estimated), sum(input),
    sum(output), sum(cached), sum(reasoning), sum(micros)
  from sums group by 2, 3, 4, 5
  on conflict (tenant_id, day, provider, model, agent_name) do update set
    entries = known.entries + excluded.entries, estimated = known.estimated + excluded.estimated,
    tokens_input = known.tokens_input + excluded.tokens_input,
    tokens_output = known.tokens_output + excluded.tokens_output,
    tokens_cached_input = known.tokens_cached_input + excluded.tokens_cached_input,
    tokens_reasoning = known.tokens_reasoning + excluded.tokens_reasoning,
    cost_micros_usd = known.cost_micros_usd + excluded.cost_micros_usd;
$$;

-- The hour in which a lease was counted, while its counters are all that an entry of that hour is counted on; null: they may not
-- be. A lease that is changed later forgets it, and all leases do when there is a new budget.
alter table lease add column counted_hour timestamptz;

create function forget_counted_hour() returns trigger language plpgsql as $$
begin
  new.counted_hour := null;
  return new;
end $$;
create trigger lease_is_counted_anew before update on lease for each row execute function forget_counted_hour();

create function recount_leases() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock(7002, hashtext(new.tenant_id));
  update lease set counted_hour = null where tenant_id = new.tenant_id and counted_hour is not null;
  return null;
end $$;
-- A credential's budget is there before anyone spends on it.
create trigger budget_is_new after insert on budget for each row when (new.scope not like 'credential:%')
  execute function recount_leases();

-- The functions that name a counter's scope and window must not see rows before row-level security has chosen them, so they find
-- nothing in an index: with them a lease looked at the counters of every session of a tenant. What they say is fenced off here.
create or replace function look_at_budgets(
  p_tenant text, p_keys text[], p_now timestamptz, p_wanted bigint, p_own bigint, p_counters bigint[]
) returns jsonb language plpgsql stable as $$
declare
  told jsonb;
begin
  select jsonb_agg(jsonb_build_object(
    'budget_id', b.id, 'scope', n.scope, 'window', b.period, 'approved', coalesce(c.approved, false),
    'amount', case when t.total > b.limit_micros_usd then b.limit_micros_usd else b.soft_limit_micros_usd end,
    'action', case when t.total > b.limit_micros_usd then null else b.soft_action end))
  into told
  from budget b
  cross join lateral (
    select counted_scope(b.scope, p_keys) as scope, period_start(b.period, p_now) as began offset 0) n
  left join budget_counter c on c.tenant_id = p_tenant and c.budget_id = b.id and c.scope = n.scope and c.period_start = n.began
  cross join lateral (select coalesce(c.settled_micros_usd + c.leased_micros_usd, 0)
    - case when c.id = any(p_counters) then p_own else 0 end + p_wanted) t(total)
  where b.tenant_id = p_tenant and b.scope = any(p_keys)
    and (t.total > b.limit_micros_usd or (b.soft_limit_micros_usd > 0 and t.total > b.soft_limit_micros_usd));
  return told;
end $$;

-- Who takes or settles alone counts, and holds lock 7002 from the first moment. Assignments of plain expressions are not
-- statements: they cost next to nothing.
create or replace function take_one(
  p_tenant text, p_durable boolean, p_now timestamptz, p_generation text, p_keys text[], p_certain numeric, p_price bigint,
  p_output bigint, p_expires_at timestamptz
) returns bigint language plpgsql as $$
declare
  entered constant text := set_config('app.tenant', p_tenant, true)
    || set_config('synchronous_commit', case when p_durable then 'on' else 'off' end, true)
    || set_config('plan_cache_mode', 'force_generic_plan', true)
    || pg_advisory_xact_lock(7002, hashtext(p_tenant))::text;
  target constant bigint := ceil((p_certain + p_price::numeric * p_output) / 1000000);
  this_hour constant timestamptz := date_trunc('hour', p_now, 'UTC');
  passed boolean;
  counted bigint[];
begin
  select array_agg(c.id), bool_or(coalesce(c.settled_micros_usd + c.leased_micros_usd, 0) + target > n.first_limit)
  into counted, passed
  from (
    select b.id, least(b.limit_micros_usd, nullif(b.soft_limit_micros_usd, 0)) as first_limit,
      counted_scope(b.scope, p_keys) as scope, period_start(b.period, p_now) as began
    from budget b where b.tenant_id = p_tenant and b.scope = any(p_keys) offset 0) n
  left join budget_counter c on c.tenant_id = p_tenant and c.budget_id = n.id and c.scope = n.scope and c.period_start = n.began;
  if passed then
    return null;
  end if;
  if array_position(counted, null) is not null then
    counted := count_up(p_tenant, p_keys, p_now, 0, target);
  elsif counted is not null then
    update budget_counter c set leased_micros_usd = c.leased_micros_usd + target
    where c.tenant_id = p_tenant and c.id = any(counted);
  end if;
  insert into lease values (
    p_tenant, p_generation, p_keys, coalesce(counted, '{}'), p_certain, p_price, p_output, target, p_expires_at, this_hour)
  on conflict (tenant_id, generation_id) do nothing;
  if found then
    return target;
  end if;
  update budget_counter c set leased_micros_usd = c.leased_micros_usd - target
  where c.tenant_id = p_tenant and c.id = any(counted);
  return null;
end $$;

-- Writes and counts one entry and gives its lease back; false: the attempt has an entry. Replicas of before call the function of
-- this name that takes a row, which counts the same.
create function settle_one(
  p_durable boolean, p_tenant_id text, p_id text, p_generation_id text, p_session_id text, p_agent_name text, p_provider
  text, p_model text, p_tokens_input int, p_tokens_output int, p_tokens_cached_input int, p_tokens_reasoning int,
  p_estimated boolean, p_cost_micros_usd bigint, p_cost_usd numeric, p_price_version text, p_created_at timestamptz, p_team
  text, p_user_id text, p_sub_agent text, p_turn_id text, p_attempt int, p_outcome text, p_tier text, p_region text,
  p_tokens_cache_write int, p_images int, p_tokens_audio_input int, p_tokens_audio_output int, p_tokens_embedding int,
  p_price_estimated boolean, p_keys text[]
) returns boolean language plpgsql as $$
declare
  entered constant text := set_config('app.tenant', p_tenant_id, true)
    || set_config('synchronous_commit', case when p_durable then 'on' else 'off' end, true)
    || set_config('plan_cache_mode', 'force_generic_plan', true)
    || pg_advisory_xact_lock(7002, hashtext(p_tenant_id))::text;
  this_hour constant timestamptz := date_trunc('hour', p_created_at, 'UTC');
  fresh boolean;
  held bigint;
  counted bigint[];
  counted_hour timestamptz;
begin
  insert into cost_event values (
    p_tenant_id, p_id, p_generation_id, p_session_id, p_agent_name, p_provider, p_model, p_tokens_input, p_tokens_output,
    p_tokens_cached_input, p_tokens_reasoning, p_estimated, p_cost_micros_usd, p_cost_usd, p_price_version, p_created_at,
    p_team, p_user_id, p_sub_agent, p_turn_id, p_attempt, p_outcome, p_tier, p_region, p_tokens_cache_write, p_images,
    p_tokens_audio_input, p_tokens_audio_output, p_tokens_embedding, p_price_estimated)
  on conflict (tenant_id, generation_id, attempt) do nothing;
  fresh := found;
  -- Who settles on another path than the lease's is counted on that.
  delete from lease l where l.tenant_id = p_tenant_id and l.generation_id = p_generation_id
  returning l.micros_usd, l.counters, case when l.keys = p_keys then l.counted_hour end into held, counted, counted_hour;
  if fresh and counted_hour = this_hour then
    update budget_counter c set settled_micros_usd = c.settled_micros_usd + p_cost_micros_usd,
      leased_micros_usd = c.leased_micros_usd - held
    where c.tenant_id = p_tenant_id and c.id = any(counted);
  else
    if held > 0 then
      update budget_counter c set leased_micros_usd = c.leased_micros_usd - held
      where c.tenant_id = p_tenant_id and c.id = any(counted);
    end if;
    if fresh then
      perform count_up(p_tenant_id, p_keys, p_created_at, p_cost_micros_usd, 0);
    end if;
  end if;
  if fresh then
    insert into cost_fresh values (
      p_tenant_id, this_hour, p_provider, p_model, p_agent_name, 1, p_estimated::int, p_tokens_input, p_tokens_output,
      p_tokens_cached_input, p_tokens_reasoning, p_cost_micros_usd);
  end if;
  return fresh;
end $$;
