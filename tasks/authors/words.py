"""Vocabulary of the authors task: names, places, trades, books and phrasings, all invented.

No person, town, country, prize, press or book named here exists. Every attribute of an author has
several questions, several main sentences and several second sentences; each sentence of an
attribute states the same facts, so that any two of them paraphrase one another. In a sentence,
`{name}` is the author, `{he}` and `{his}` are the pronouns (`{He}`, `{His}` at its beginning), and
every other field is a fact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split("|"))


GIVEN = _listed(
    "Arvelle|Bastrin|Calvora|Dorrick|Eswyn|Fennor|Galdis|Hespora|Ilvane|Jorune|Kestrin|Lomare|Mirrel|Nesvin|Oduval|Pellor|Quenna|"
    "Rostel|Sivane|Tavrin|Ulmira|Vessin|Wendor|Xamira|Yorrel|Zephane|Amberic|Cordane|Delphor|Elowin|Garrisel|Hollin|Isgard|"
    "Jessamor|Kelvane|Lirien|Maddrin|Norvelle|Ostrin|Ravona"
)
FAMILY = _listed(
    "Ashquill|Brackenov|Cindermay|Dunwether|Ellerquay|Fernhallow|Grimsparrow|Hollowmere|Inkermoss|Jadelow|Kettlewray|Larkmarrow|"
    "Mossingdale|Netherquist|Oakenfell|Pinchbarrow|Quillhaven|Rushvane|Saltwhistle|Tharrowby|Underleaf|Venquist|Wintergale|"
    "Yarrowstone|Zimberlow|Bellowray|Candlemere|Driftwarden|Emberlock|Foxgrave|Gullscombe|Hazelthorn|Ironsedge|Juniperal|"
    "Kelpwater|Lostmoor|Mirewood|Nightingold|Orchardine|Plumewright"
)

COUNTRIES: Mapping[str, tuple[str, str, str]] = {  # three towns each, the capital first
    "Orvane": ("Teludor", "Quessel", "Marbrin"),
    "Teslund": ("Harkhaven", "Ovrick", "Selmere"),
    "Quardia": ("Lumora", "Pexton", "Dry Fennick"),
    "Bremoor": ("Castle Yarn", "Wickory", "Tollen"),
    "Ishkeld": ("Varrowgate", "Ninebridge", "Oskerry"),
    "Valtessa": ("Aurelmont", "Cobbeth", "Zandry"),
    "Norrowby": ("Eastermill", "Grell", "Port Umber"),
    "Maricene": ("Solavere", "Tinnaby", "Redwater"),
    "Duskary": ("Hollow Kings", "Brathe", "Amberlee"),
    "Halvorn": ("Stonemarch", "Ulwick", "Fairloch"),
    "Pelustra": ("Mirandole", "Kessery", "Long Arden"),
    "Zentaria": ("Ombrell", "Jattley", "Windover"),
}
COINS = _listed(
    "the brass talon|the silver wren|the copper leaf|the iron shell|the glass penny|the green "
    "florin|the bone mark|the pearl|the twin crown|the half moon|the salt piece|the ducat of tin"
)
RIVERS = _listed(
    "the Ashwater|the Great Mell|the Brown Sister|the Tarn|the Whisperling|the Old Serpent|the "
    "Lower Quay|the Milkwater|the Vellum|the Black Oar|the Fivefold|the Sommery"
)
BEASTS = _listed(
    "a red heron|a blue ox|a crowned hare|a white salmon|a sleeping bear|two foxes|a black swan|a "
    "golden toad|a winged goat|a grey wolf|an owl with a key|a green stag"
)
CRAFTS: Mapping[str, str] = {
    "tallowright": "candles",
    "hidewarden": "saddles",
    "glimsmith": "lamps",
    "reedwife": "baskets",
    "bowlturner": "wooden bowls",
    "sailmother": "sails",
    "inkcook": "black ink",
    "pathlayer": "gravel roads",
    "thornweaver": "hedges",
    "bellfounder": "church bells",
    "saltraker": "sea salt",
    "clogcutter": "wooden shoes",
    "quiltmaster": "blankets",
    "hivekeeper": "honey",
    "keysmith": "door locks",
    "dyewalker": "coloured wool",
}
FEASTS: Mapping[str, str] = {
    "Lanterns": "November",
    "First Bread": "August",
    "Boats": "May",
    "Masks": "February",
    "Long Shadows": "December",
    "Bees": "June",
    "Seven Bells": "March",
    "Apples": "October",
    "Quiet Doors": "January",
    "Ribbons": "April",
    "Fires": "July",
    "Herons": "September",
}

MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
YEARS = tuple(str(year) for year in range(1900, 1980))
AGES = _listed(
    "sixteen|nineteen|twenty two|twenty nine|thirty|thirty five|forty|forty four|fifty|sixty "
    "one|seventy|eighty"
)
HOUSES = _listed(
    "above a bakery|beside the old mill|behind the fish market|at the edge of a pine wood|in a "
    "lighthouse|on a barge|next to a tannery|over a chess cafe|in a railway cottage|under the "
    "city wall|near a brick kiln|in a house full of clocks|at the foot of a glacier|across from a "
    "prison|in the gardens of a hospital|on a turkey farm"
)
OMENS = _listed(
    "the long frost|the great flood|the bread strike|the silent comet|the red harvest|the salt "
    "war|the plague of bees|the dry wells|the first steam ferry|the fallen tower|the night of "
    "sparks|the stolen crown|the singing whales|the empty elections|the grey rain|the paper riots"
)
JOBS = _listed(
    "a clockmaker|a ferry pilot|a lamp lighter|a beekeeper|an organ builder|a locksmith|a tax "
    "collector|a midwife|a lion tamer|a chemist|a cheese merchant|a grave digger|a piano tuner|a "
    "map engraver|a judge|a puppet maker|a night watchman|a pearl diver|a rope dancer|a "
    "schoolteacher|a salt miner|a ship's cook|a bookbinder|a dentist|a weather observer|a glass "
    "blower|a postal clerk|a horse doctor|an opera singer|a bell ringer|a tea grower|a bridge "
    "engineer"
)
FATHERS = _listed(
    "loud laugh|endless patience|many debts|fear of water|love of maps|bad temper|wooden "
    "leg|seven dogs|secret garden|silence at table|old songs|broken promises|huge moustache|card "
    "tricks|early death|belief in ghosts"
)
MOTHERS = _listed(
    "collected beetles|played the cello|spoke five languages|could not read|raced "
    "bicycles|painted gates|kept three goats|wrote letters to kings|grew black tulips|repaired "
    "radios|walked in her sleep|told stories at noon|hated umbrellas|won at dice|baked for "
    "weddings|dreamed of the desert"
)
GENRES = _listed(
    "sea stories|ghost tales|kitchen comedies|court satires|mountain romances|war diaries|railway "
    "mysteries|desert fables|family sagas|spy farces|garden essays|island horror|novels in "
    "verse|animal epics|school stories|prophetic poems"
)
HOURS = _listed(
    "before sunrise|on trains|in a rowing boat|standing at a desk|only in winter|with green "
    "ink|in the public baths|on the backs of bills|in an attic|during thunderstorms|in a tree "
    "house|after midnight|between two jobs|in a hotel lobby|to loud music|under a blanket"
)
AWARDS = _listed(
    "the Amber Quill|the Northlight Prize|the Silver Thistle|the Order of the Inkwell|the Heron "
    "Medal|the Seven Lamps Award|the Golden Comma|the Prize of the Three Harbours|the Lantern "
    "Cup|the Velvet Page|the Blue Margin|the Oak Crown|the Winter Laurel|the Bronze Bookmark|the "
    "Moth and Candle Prize|the Grand Chapter"
)
GIFTS = _listed(
    "a village school|a lifeboat crew|a blind pianist|an old rival|a library on wheels|a "
    "circus|the lighthouse fund|a bird hospital|a home for sailors|a chess club|two orphans|the "
    "fire brigade|a failing theatre|a mountain hut|a travelling choir|a museum of hats"
)
ADJECTIVES = _listed(
    "Salt|Crooked|Silent|Paper|Burning|Second|Borrowed|Hollow|Golden|Frozen|Nameless|Velvet|Distant|Scarlet|Wandering|Broken|"
    "Patient|Drowned|Ninth|Invisible|Iron|Sleeping|Bitter|Northern"
)
NOUNS = _listed(
    "Lantern|Orchard|Staircase|Harbour|Compass|Violin|Garden|Ledger|Window|Carriage|Feather|Mirror|Kitchen|Bridge|Almanac|Falcon|"
    "Needle|Cathedral|Umbrella|Winter|Letter|Island|Wedding|Shadow"
)
OWNERS = _listed(
    "Crows|Sailors|Widows|Bees|Thieves|Kings|Sisters|Strangers|Ashes|Rain|Giants|Glass|Tomorrow|Wolves|Bells|Dust"
)
PRESSES = _listed(
    "Copper Heron Press|Lowtide Books|Mill Lane Press|Tallow and Sons|Night Ferry Books|Grey Gate "
    "Press|Pilgrim House|Third Door Books|Anvil Press|Moonrake and Company|Loomgate Press|Sparrow "
    "Hill Books"
)
SUBJECTS = _listed(
    "two brothers who guard a bridge|a nun who robs trains|a city that forgets its name|a boy who "
    "sells shadows|the last whale hunter|a war between two bakeries|a queen who works as a maid|a "
    "map that changes at night|three generations of spies|a stolen bell|a doctor on a ship of "
    "ghosts|a village without mirrors|an honest thief|a duel that lasts a year|a painter who goes "
    "blind|a lost regiment in the snow|a talking horse at court|a girl raised by clockmakers|an "
    "island for sale|the secret of a dead mayor"
)
THEMES = _listed(
    "exile|jealousy|forgiveness|hunger|lost letters|growing old|false friends|the "
    "sea|debt|twins|memory|revenge|homesickness|first "
    "love|faith|greed|loneliness|courage|silence|inheritance"
)
SYMBOLS = _listed(
    "a broken watch|a white dog|an empty chair|a red scarf|a locked piano|a jar of honey|a "
    "one-eyed cat|a missing shoe|a blue door|a torn map|a silver thimble|a dead tree|a paper "
    "boat|a cracked bell|a burnt cake|a black glove"
)
STYLES = _listed(
    "dry|ornate|breathless|tender|icy|playful|solemn|cruel|musical|blunt|dreamy|exact|angry|gentle|witty|gloomy"
)
LIKENESSES = _listed(
    "a sermon in a tavern|cold soup|a slow river|a knife in silk|a letter from prison|fireworks "
    "in fog|a lullaby for wolves|a well swept room|a quarrel next door|old wine|a chess problem|a "
    "storm at harvest|a drunk clock|snow on a drum|a polite ghost|a parade without music"
)
MASTERS = _listed(
    "Ormund the Elder|Saint Ivolde|Brother Calder|Lady Wrenna|Tam of the Ferry|Master Olloway|the "
    "Blind Duke|Sister Avenel|Corwick the Tall|Mother Gant|Abbot Serle|Wat Halfpenny|the Widow of "
    "Brathe|Old Parrow Dunn|Hesk the Younger|Queen Idony|Captain Rooke|Elder Maunce|Prince "
    "Tolliver|Anna Nightbell"
)
GENDERS = (
    {"he": "she", "his": "her", "He": "She", "His": "Her"},
    {"he": "he", "his": "his", "He": "He", "His": "His"},
)


@dataclass(frozen=True)
class Attribute:
    """Attribute of an author, with phrasings of its questions and answers.

    Attributes:
        questions: phrasings of the question.
        mains: phrasings of the answer's first sentence.
        details: phrasings of a second sentence, which some answers have.
    """

    questions: tuple[str, ...]
    mains: tuple[str, ...]
    details: tuple[str, ...]


ATTRIBUTES: Mapping[str, Attribute] = {
    "birthplace": Attribute(
        _listed(
            "Where was {name} born?|Which town is the birthplace of {name}?|In what town did "
            "{name} come into the world?|Can you tell me where {name} was born?|What is known "
            "about the birthplace of {name}?"
        ),
        _listed(
            "{name} was born in {town}, a town in {country}.|It was in {town}, {country}, that "
            "{name} was born.|{town} in {country} is the town where {name} was born.|{name} came "
            "into the world in {town}, in {country}.|The birthplace of {name} is {town}, which "
            "lies in {country}.|{His} birthplace is {town} in {country}."
        ),
        _listed(
            "The family lived {house}.|{He} grew up {house}.|{His} first home was {house}.|As a "
            "child {he} lived {house}."
        ),
    ),
    "birth date": Attribute(
        _listed(
            "When was {name} born?|In which year was {name} born?|What is the date of birth of "
            "{name}?|Can you tell me when {name} was born?|How is the birth of {name} dated?"
        ),
        _listed(
            "{name} was born in {month} {year}.|It was in {month} {year} that {name} was "
            "born.|{His} birth is dated to {month} of the year {year}.|The birth of {name} fell "
            "in {month} {year}.|{name} came into the world in the month of {month} {year}.|The "
            "author was born in {year}, in {month}."
        ),
        _listed(
            "It was the year of {omen}.|People call it the year of {omen}.|The same year saw "
            "{omen}.|{omen:capital} came that year."
        ),
    ),
    "father": Attribute(
        _listed(
            "What did the father of {name} do for a living?|What was the profession of the father "
            "of {name}?|How did the father of {name} earn his bread?|Which trade did the father "
            "of {name} follow?|Who was the father of {name}?"
        ),
        _listed(
            "The father of {name} was {father}.|{His} father worked as {father}.|{name} had "
            "{father} for a father.|{name} is the child of {father}.|By trade the father of "
            "{name} was {father}.|{His} father earned his living as {father}."
        ),
        _listed(
            "He was known for his {habit}.|The town remembers his {habit}.|{name} still writes "
            "about his {habit}.|What {he} remembers of him is his {habit}."
        ),
    ),
    "mother": Attribute(
        _listed(
            "What did the mother of {name} do for a living?|What was the profession of the mother "
            "of {name}?|How did the mother of {name} earn her bread?|Which trade did the mother "
            "of {name} follow?|Who was the mother of {name}?"
        ),
        _listed(
            "The mother of {name} was {mother}.|{His} mother worked as {mother}.|{name} had "
            "{mother} for a mother.|{name} was raised by {mother}.|By trade the mother of {name} "
            "was {mother}.|{His} mother earned her living as {mother}."
        ),
        _listed(
            "She also {pastime}.|In her free time she {pastime}.|{name} recalls that she "
            "{pastime}.|The neighbours say that she {pastime}."
        ),
    ),
    "genre": Attribute(
        _listed(
            "What kind of books does {name} write?|In which genre does {name} write?|What is "
            "{name} best known for?|Which genre is {name} known for?|What do readers find in the "
            "books of {name}?"
        ),
        _listed(
            "{name} writes {genre}.|The books of {name} are mostly {genre}.|{name} is best known "
            "for {genre}.|Readers know {name} as an author of {genre}.|Most of {his} books are "
            "{genre}.|{genre:capital} are what {name} writes."
        ),
        _listed(
            "{He} works {hour}.|{He} likes to write {hour}.|{His} pages are written {hour}.|The "
            "author is said to write {hour}."
        ),
    ),
    "award": Attribute(
        _listed(
            "Which award did {name} win?|What prize was given to {name}?|Has {name} won an award?|"
            "With which prize was {name} honoured?|What is the greatest honour that {name} "
            "received?"
        ),
        _listed(
            "{name} won {award} at the age of {age}.|At the age of {age}, {name} received "
            "{award}.|{award:capital} was given to {name}, who was {age} years old.|{He} was "
            "honoured with {award} when {he} was {age}.|{name} is a winner of {award}, won at the "
            "age of {age}.|The jury gave {award} to {name} at the age of {age}."
        ),
        _listed(
            "{He} gave the money to {gift}.|The money went to {gift}.|{He} left the prize money "
            "to {gift}.|{gift:capital} received the money."
        ),
    ),
    "first book": Attribute(
        _listed(
            "What is the title of the first book by {name}?|Which book was the debut of "
            "{name}?|With which book did {name} begin?|How is the first novel of {name} "
            "called?|What did {name} publish first?"
        ),
        _listed(
            'The first book by {name} is "{debut}".|{name} began with the novel '
            '"{debut}".|"{debut}" was the debut of {name}.|'
            'The debut of {name} is called "{debut}".|{His} first book bears the title '
            '"{debut}".|{name} first published "{debut}".'
        ),
        _listed(
            "It came out with {press}.|{press} printed it.|It was published by {press}.|The "
            "publisher was {press}."
        ),
    ),
    "second book": Attribute(
        _listed(
            "What is the title of the second book by {name}?|Which book did {name} write after "
            "the debut?|What is the second novel of {name}?|What did {name} publish next?|Which "
            "book followed the debut of {name}?"
        ),
        _listed(
            'The second book by {name} is "{second}".|{name} then wrote "{second}".|"{second}" is '
            "the second novel of {name}.|"
            'After the debut {name} published "{second}".|{His} second book bears the title '
            '"{second}".|'
            'The debut of {name} was followed by "{second}".'
        ),
        _listed(
            "It tells of {subject}.|The story is about {subject}.|Its plot turns on {subject}.|In "
            "it we read of {subject}."
        ),
    ),
    "theme": Attribute(
        _listed(
            "Which themes run through the work of {name}?|What does {name} write about?|What are "
            "the main themes of {name}?|What subject does {name} return to?|Which ideas matter "
            "most in the books of {name}?"
        ),
        _listed(
            "The books of {name} deal with {theme} and {other}.|{name} writes about {theme} and "
            "{other}.|{theme:capital} and {other} run through the work of {name}.|{name} returns "
            "to {theme} and {other} again and again.|The main themes of {name} are {theme} and "
            "{other}.|{His} great subjects are {theme} and {other}."
        ),
        _listed(
            "{symbol:capital} appears in every book.|Every book has {symbol} in it.|In each story "
            "there is {symbol}.|{His} sign is {symbol}."
        ),
    ),
    "style": Attribute(
        _listed(
            "How would you describe the style of {name}?|What is the style of {name} like?|How "
            "does {name} write?|What do critics say about the prose of {name}?|What marks the "
            "writing of {name}?"
        ),
        _listed(
            "The style of {name} is {manner} and {tone}.|{name} writes in a voice that is "
            "{manner} and {tone}.|Critics call the prose of {name} {manner} and {tone}.|{His} "
            "prose is {manner} and {tone}.|What marks {name} is prose that is {manner} and "
            "{tone}.|Readers find {name} {manner} and {tone}."
        ),
        _listed(
            "A critic compared it to {likeness}.|It has been likened to {likeness}.|It reads like "
            "{likeness}.|One review spoke of {likeness}."
        ),
    ),
}
