-- A lease taken alone and an entry settled alone are what a caller waits for: they take as few statements as can be.

-- The micro-USD set aside for a new lease; null, and nothing changed: a limit, be it a soft one, is in the way or the lease is
-- known, and `take_leases` is to be asked.
create function take_one(
  p_tenant text, p_durable boolean, p_now timestamptz, p_generation text, p_keys text[], p_certain numeric, p_price bigint,
  p_output bigint, p_expires_at timestamptz
) returns bigint language plpgsql as $$
declare
  target constant bigint := ceil((p_certain + p_price::numeric * p_output) / 1000000);
  passed boolean := false;
  known boolean;
  counted bigint[];
begin
  if enter(p_tenant, p_durable, false) then
    select bool_or(t.total > b.limit_micros_usd or (b.soft_limit_micros_usd > 0 and t.total > b.soft_limit_micros_usd)),
      bool_and(c.id is not null), array_agg(c.id)
    into passed, known, counted
    from budget b
    left join budget_counter c on c.tenant_id = p_tenant and c.budget_id = b.id
      and c.scope = counted_scope(b.scope, p_keys) and c.period_start = period_start(b.period, p_now)
    cross join lateral (select coalesce(c.settled_micros_usd + c.leased_micros_usd, 0) + target) t(total)
    where b.tenant_id = p_tenant and b.scope = any(p_keys);
  end if;
  if passed is not true then
    if known then
      update budget_counter c set leased_micros_usd = c.leased_micros_usd + target
      where c.tenant_id = p_tenant and c.id = any(counted);
    elsif not known then
      counted := count_up(p_tenant, p_keys, p_now, 0, target);
    end if;
    insert into lease values (
      p_tenant, p_generation, p_keys, coalesce(counted, '{}'), p_certain, p_price, p_output, target, p_expires_at)
    on conflict (tenant_id, generation_id) do nothing;
    if found then
      return target;
    end if;
    update budget_counter c set leased_micros_usd = c.leased_micros_usd - target
    where c.tenant_id = p_tenant and c.id = any(counted);
  end if;
  return null;
end $$;

-- As before, in one statement for all that is counted. The counters of the lease and of the entry are mostly the same, and are
-- changed once. Without budgets there is nothing to count on, so `p_limited` need not be looked at.
create or replace function settle_alone(p_tenant text, p_limited boolean, e cost_event, p_keys text[]) returns boolean
language plpgsql as $$
declare
  held lease;
  fresh boolean;
  counted bigint[] := '{}';
begin
  insert into cost_event values (e.*) on conflict (tenant_id, generation_id, attempt) do nothing;
  fresh := found;
  delete from lease l where l.tenant_id = p_tenant and l.generation_id = e.generation_id returning * into held;
  if fresh then
    with counted as (
      insert into budget_counter as known (tenant_id, budget_id, scope, period_start, settled_micros_usd)
      select p_tenant, b.id, counted_scope(b.scope, p_keys), period_start(b.period, e.created_at), e.cost_micros_usd
      from budget b where b.tenant_id = p_tenant and b.scope = any(p_keys)
      on conflict (tenant_id, budget_id, scope, period_start) do update set
        settled_micros_usd = known.settled_micros_usd + excluded.settled_micros_usd,
        leased_micros_usd = known.leased_micros_usd
          - case when known.id = any(held.counters) then held.micros_usd else 0 end
      returning id
    ), hours as (
      insert into cost_hour as known values (
        p_tenant, date_trunc('hour', e.created_at, 'UTC'), e.provider, e.model, e.agent_name, 1, e.estimated::int,
        e.tokens_input, e.tokens_output, e.tokens_cached_input, e.tokens_reasoning, e.cost_micros_usd)
      on conflict (tenant_id, hour, provider, model, agent_name) do update set
        entries = known.entries + excluded.entries, estimated = known.estimated + excluded.estimated,
        tokens_input = known.tokens_input + excluded.tokens_input,
        tokens_output = known.tokens_output + excluded.tokens_output,
        tokens_cached_input = known.tokens_cached_input + excluded.tokens_cached_input,
        tokens_reasoning = known.tokens_reasoning + excluded.tokens_reasoning,
        cost_micros_usd = known.cost_micros_usd + excluded.cost_micros_usd
    ), days as (
      insert into cost_day as known values (
        p_tenant, date_trunc('day', e.created_at, 'UTC'), e.provider, e.model, e.agent_name, 1, e.estimated::int,
        e.tokens_input, e.tokens_output, e.tokens_cached_input, e.tokens_reasoning, e.cost_micros_usd)
      on conflict (tenant_id, day, provider, model, agent_name) do update set
        entries = known.entries + excluded.entries, estimated = known.estimated + excluded.estimated,
        tokens_input = known.tokens_input + excluded.tokens_input,
        tokens_output = known.tokens_output + excluded.tokens_output,
        tokens_cached_input = known.tokens_cached_input + excluded.tokens_cached_input,
        tokens_reasoning = known.tokens_reasoning + excluded.tokens_reasoning,
        cost_micros_usd = known.cost_micros_usd + excluded.cost_micros_usd
    )
    select coalesce(array_agg(id), '{}') into counted from counted;
  end if;
  if held.micros_usd > 0 and not held.counters <@ counted then
    update budget_counter c set leased_micros_usd = c.leased_micros_usd - held.micros_usd
    where c.tenant_id = p_tenant and c.id = any(held.counters) and c.id <> all(counted);
  end if;
  return fresh;
end $$;

-- Whether the entry was written; false: the attempt has one.
create function settle_one(p_durable boolean, e cost_event, p_keys text[]) returns boolean language plpgsql as $$
begin
  perform set_config('app.tenant', e.tenant_id, true),
    set_config('synchronous_commit', case when p_durable then 'on' else 'off' end, true),
    set_config('plan_cache_mode', 'force_generic_plan', true),
    pg_advisory_xact_lock_shared(7001, hashtext(e.tenant_id)), pg_advisory_xact_lock(7002, hashtext(e.tenant_id));
  return settle_alone(e.tenant_id, true, e, p_keys);
end $$;
