-- Reserve, extend and settle, many calls of one tenant at a time, each batch in one statement that is its own transaction.
-- Two locks a tenant: 7001 is shared by all who spend and taken alone by who sets budgets; 7002 is taken by who counts.

create function period_start(p_period text, p_at timestamptz) returns timestamptz language sql stable
return case p_period when 'total' then 'epoch'::timestamptz else date_trunc(p_period, p_at, 'UTC') end;

create function enter(p_tenant text, p_durable boolean) returns boolean language plpgsql as $$
begin
  perform set_config('app.tenant', p_tenant, true);
  perform set_config('synchronous_commit', case when p_durable then 'on' else 'off' end, true);
  perform pg_advisory_xact_lock_shared(7001, hashtext(p_tenant));
  if not exists (select from budget where tenant_id = p_tenant) then
    return false;
  end if;
  perform pg_advisory_xact_lock(7002, hashtext(p_tenant));
  return true;
end $$;

-- Gives back what leases hold whose time has passed. They stay, empty, so that they can be taken anew.
create function reclaim_leases(p_tenant text, p_now timestamptz) returns bigint language sql as $$
  with ended as (
    select generation_id, micros_usd, counters from lease
    where tenant_id = p_tenant and expires_at <= p_now and micros_usd > 0 for update
  ), emptied as (
    update lease l set micros_usd = 0, counters = '{}' from ended e
    where l.tenant_id = p_tenant and l.generation_id = e.generation_id
  ), freed as (
    update budget_counter c set leased_micros_usd = c.leased_micros_usd - f.micros_usd
    from (select id, sum(micros_usd) as micros_usd from ended, unnest(counters) id group by id) f
    where c.tenant_id = p_tenant and c.id = f.id
  )
  select coalesce(sum(micros_usd), 0)::bigint from ended;
$$;

-- What stands in the way of spending `p_wanted` on these scopes, of which `p_own` is held on `p_counters` already; and the
-- counters it is counted on.
create function look_at_budgets(
  p_tenant text, p_scopes text[], p_now timestamptz, p_wanted bigint, p_own bigint, p_counters bigint[],
  out counters bigint[], out missing boolean, out told jsonb) language sql stable as $$
  with found as (
    select b.id as budget_id, s.scope, b.period, b.limit_micros_usd, b.soft_limit_micros_usd, b.soft_action, c.id,
      coalesce(c.approved, false) as approved,
      coalesce(c.settled_micros_usd + c.leased_micros_usd, 0)
        - case when c.id = any(p_counters) then p_own else 0 end + p_wanted as total
    from unnest(p_scopes) with ordinality s(scope, depth)
    join budget b on b.tenant_id = p_tenant and b.scope in (s.scope, split_part(s.scope, ':', 1) || ':*')
    left join budget_counter c on c.tenant_id = p_tenant and c.budget_id = b.id and c.scope = s.scope
      and c.period_start = period_start(b.period, p_now)
  )
  select
    coalesce(array_agg(id) filter (where id is not null), '{}'),
    coalesce(bool_or(id is null), false),
    jsonb_agg(jsonb_build_object(
      'budget_id', budget_id, 'scope', scope, 'window', period,
      'amount', case when total > limit_micros_usd then limit_micros_usd else soft_limit_micros_usd end,
      'action', case when total > limit_micros_usd then null else soft_action end,
      'approved', approved)) filter (
        where total > limit_micros_usd or (soft_limit_micros_usd > 0 and total > soft_limit_micros_usd))
  from found;
$$;

create function begin_counters(p_tenant text, p_scopes text[], p_now timestamptz) returns void language sql as $$
  insert into budget_counter (tenant_id, budget_id, scope, period_start)
  select p_tenant, b.id, s.scope, period_start(b.period, p_now)
  from unnest(p_scopes) s(scope)
  join budget b on b.tenant_id = p_tenant and b.scope in (s.scope, split_part(s.scope, ':', 1) || ':*')
  on conflict do nothing;
$$;

-- `p_asked` is an array of {generation_id, scopes, certain, price, output, expires_at}; without scopes it extends a lease.
-- States: held, granted, hard (a limit is in the way), ask (a soft limit asks first), missing (nothing to extend).
create function take_leases(p_tenant text, p_durable boolean, p_now timestamptz, p_asked jsonb)
returns table (place bigint, state text, micros bigint, ends_at timestamptz, told jsonb) language plpgsql as $$
declare
  limited constant boolean := enter(p_tenant, p_durable);
  reclaimed boolean := false;
  wanted record;
  held lease;
  seen record;
  target bigint;
  counted bigint[];
begin
  for wanted in
    select asked.place, a.* from jsonb_array_elements(p_asked) with ordinality asked(one, place),
      jsonb_to_record(asked.one) as a(
        generation_id text, scopes text[], certain numeric, price bigint, output bigint, expires_at timestamptz)
    order by a.generation_id, asked.place
  loop
    place := wanted.place;
    told := null;
    select * into held from lease l where l.tenant_id = p_tenant and l.generation_id = wanted.generation_id for update;
    if not found and wanted.scopes is null then
      state := 'missing';
      return next;
      continue;
    end if;
    if found and wanted.scopes is not null and held.expires_at > p_now then
      state := 'held';
      micros := held.micros_usd;
      ends_at := held.expires_at;
      return next;
      continue;
    end if;
    if wanted.scopes is null then
      wanted.scopes := held.scopes;
      wanted.certain := held.certain_millionths;
      wanted.price := held.output_price;
      wanted.output := greatest(held.output_tokens, wanted.output);
    end if;
    held.micros_usd := coalesce(held.micros_usd, 0);
    target := ceil((wanted.certain + wanted.price::numeric * wanted.output) / 1000000);
    state := 'granted';
    counted := '{}';
    if limited then
      select * into seen from look_at_budgets(
        p_tenant, wanted.scopes, p_now, target, held.micros_usd, held.counters);
      if seen.told is not null and not reclaimed then
        reclaimed := true;
        if reclaim_leases(p_tenant, p_now) > 0 then
          select * into held from lease l where l.tenant_id = p_tenant and l.generation_id = wanted.generation_id;
          held.micros_usd := coalesce(held.micros_usd, 0);
          select * into seen from look_at_budgets(
            p_tenant, wanted.scopes, p_now, target, held.micros_usd, held.counters);
        end if;
      end if;
      told := seen.told;
      if told is not null and target > held.micros_usd then
        if told @? '$[*] ? (@.action == null)' then
          state := 'hard';
        elsif held.generation_id is null and told @? '$[*] ? (@.action == "ask" && @.approved == false)' then
          state := 'ask';
        end if;
      end if;
      if state = 'granted' then
        if seen.missing then
          perform begin_counters(p_tenant, wanted.scopes, p_now);
          select * into seen from look_at_budgets(
            p_tenant, wanted.scopes, p_now, target, held.micros_usd, held.counters);
        end if;
        if held.micros_usd > 0 then
          update budget_counter c set leased_micros_usd = c.leased_micros_usd - held.micros_usd
          where c.tenant_id = p_tenant and c.id = any(held.counters);
        end if;
        update budget_counter c set leased_micros_usd = c.leased_micros_usd + target
        where c.tenant_id = p_tenant and c.id = any(seen.counters);
        counted := seen.counters;
      end if;
    end if;
    if state = 'granted' then
      micros := target;
      ends_at := wanted.expires_at;
      insert into lease values (
        p_tenant, wanted.generation_id, wanted.scopes, counted, wanted.certain, wanted.price,
        wanted.output, target, wanted.expires_at)
      on conflict (tenant_id, generation_id) do update set
        scopes = excluded.scopes, counters = excluded.counters, certain_millionths = excluded.certain_millionths,
        output_price = excluded.output_price, output_tokens = excluded.output_tokens, micros_usd = excluded.micros_usd,
        expires_at = excluded.expires_at;
    else
      micros := held.micros_usd;
      ends_at := held.expires_at;
    end if;
    return next;
  end loop;
end $$;

-- `p_events` is an array of entries with their scopes. Writes what is new, counts it, gives leases back, and returns the
-- entries that were there before.
create function settle_events(p_tenant text, p_durable boolean, p_events jsonb) returns setof cost_event
language plpgsql as $$
declare
  limited constant boolean := enter(p_tenant, p_durable);
  asked constant int := jsonb_array_length(p_events);
  fresh text[];
begin
  with given as (
    select * from jsonb_populate_recordset(null::cost_event, p_events)
  ), written as (
    insert into cost_event select * from given order by generation_id, attempt
    on conflict (tenant_id, generation_id, attempt) do nothing
    returning id
  ), freed as (
    delete from lease l using given g where l.tenant_id = p_tenant and l.generation_id = g.generation_id
    returning l.micros_usd, l.counters
  ), given_back as (
    update budget_counter c set leased_micros_usd = c.leased_micros_usd - f.micros_usd
    from (select id, sum(micros_usd) as micros_usd from freed, unnest(counters) id group by id) f
    where c.tenant_id = p_tenant and c.id = f.id
  )
  select coalesce(array_agg(id), '{}') into fresh from written;

  if limited and cardinality(fresh) > 0 then
    insert into budget_counter as known (tenant_id, budget_id, scope, period_start, settled_micros_usd)
    select p_tenant, b.id, s.scope, period_start(b.period, e.created_at), sum(e.cost_micros_usd)
    from jsonb_to_recordset(p_events) as e(id text, scopes text[], created_at timestamptz, cost_micros_usd bigint),
      unnest(e.scopes) s(scope), budget b
    where e.id = any(fresh) and b.tenant_id = p_tenant and b.scope in (s.scope, split_part(s.scope, ':', 1) || ':*')
    group by 2, 3, 4
    on conflict (tenant_id, budget_id, scope, period_start) do update
      set settled_micros_usd = known.settled_micros_usd + excluded.settled_micros_usd;
  end if;

  with sums as (
    select date_trunc('hour', created_at, 'UTC') as hour, provider, model, agent_name, count(*) as entries,
      count(*) filter (where estimated) as estimated, sum(tokens_input) as input, sum(tokens_output) as output,
      sum(tokens_cached_input) as cached, sum(tokens_reasoning) as reasoning, sum(cost_micros_usd) as micros
    from jsonb_populate_recordset(null::cost_event, p_events) where id = any(fresh) group by 1, 2, 3, 4
  ), hours as (
    insert into cost_hour as known
    select p_tenant, * from sums order by hour, provider, model, agent_name
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
  from sums group by 2, 3, 4, 5 order by 2, 3, 4, 5
  on conflict (tenant_id, day, provider, model, agent_name) do update set
    entries = known.entries + excluded.entries, estimated = known.estimated + excluded.estimated,
    tokens_input = known.tokens_input + excluded.tokens_input,
    tokens_output = known.tokens_output + excluded.tokens_output,
    tokens_cached_input = known.tokens_cached_input + excluded.tokens_cached_input,
    tokens_reasoning = known.tokens_reasoning + excluded.tokens_reasoning,
    cost_micros_usd = known.cost_micros_usd + excluded.cost_micros_usd;

  if cardinality(fresh) < asked then
    return query select c.* from jsonb_to_recordset(p_events) as e(id text, generation_id text, attempt int)
      join cost_event c on c.tenant_id = p_tenant and c.generation_id = e.generation_id and c.attempt = e.attempt
      where e.id <> all(fresh);
  end if;
end $$;
